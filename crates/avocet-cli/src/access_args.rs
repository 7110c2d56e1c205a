//! The arguments of `avocet passwd`, `avocet acl` and `avocet certificates`.

use std::path::PathBuf;

use avocet_topic::{TopicFilterBuf, TopicNameBuf};
use clap::{Args, Subcommand};

const PASSWD_EXAMPLES: &str = "\
Examples:
  avocet passwd /etc/avocet/passwd ann          asks for the password, twice
  pass show ann | avocet passwd FILE ann        the first line of standard input
  avocet passwd --scram FILE ann                for clients that authenticate with SCRAM-SHA-256
  avocet passwd -D FILE ann                     removes ann
  avocet passwd --list FILE                     the users, and whose hashes are outdated

A file that mosquitto_passwd wrote can be used and changed; its hashes stay valid until the
passwords are set anew.";

const CERTIFICATES_EXAMPLES: &str = "\
Examples:
  avocet certificates /etc/avocet/tls --server mqtt.example.org --server 192.168.1.7
  avocet certificates /etc/avocet/tls --client pump-7 --client ann
  avocet certificates /etc/avocet/tls           the broker's anew, for localhost

The folder gets ca.pem and ca.key the first time, which stay; broker.pem and broker.key; and
NAME.pem and NAME.key for each client, whose Common Name is NAME. Give clients ca.pem, and keep
ca.key where only you can read it: who has it can make certificates. A broker reads new files by itself.";

#[derive(Debug, Args)]
#[command(after_help = PASSWD_EXAMPLES)]
pub(crate) struct PasswdArgs {
    /// The password file; it is made when it is missing, readable by its owner only
    pub(crate) file: PathBuf,
    /// The User Name to add, or whose password to change
    #[arg(required_unless_present = "list")]
    pub(crate) user: Option<String>,
    /// With -b: the password; other users of this machine can read the arguments of a process
    #[arg(requires = "batch")]
    pub(crate) password: Option<String>,
    /// Take the password from the command line
    #[arg(short, long, requires = "password", conflicts_with_all = ["delete", "list", "check"])]
    pub(crate) batch: bool,
    /// Store what SCRAM-SHA-256 needs, with which the plain password is still right
    #[arg(long, conflicts_with_all = ["delete", "list", "check"])]
    pub(crate) scram: bool,
    /// Remove the user
    #[arg(short = 'D', long, conflicts_with_all = ["list", "check"])]
    pub(crate) delete: bool,
    /// Change nothing: say whether the password is that of the user (exit code 2 if not)
    #[arg(long, conflicts_with = "list")]
    pub(crate) check: bool,
    /// Change nothing: print each user and the kind of the hash
    #[arg(long, conflicts_with = "user")]
    pub(crate) list: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AclArgs {
    #[command(subcommand)]
    pub(crate) action: AclAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AclAction {
    /// Say which rule decides whether a client may do something: exit code 0 if it may, 2 if not
    Explain(Box<ExplainArgs>),
    /// Print the rules that an ACL file of mosquitto stands for
    Import {
        /// The ACL file, or - for standard input
        file: PathBuf,
    },
    /// Read a file of rules and say how many there are
    Check {
        /// The file
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The file of rules
    pub(crate) rules: PathBuf,
    #[command(subcommand)]
    pub(crate) wish: Wish,
    /// The Client Identifier
    #[arg(
        short,
        long,
        value_name = "ID",
        default_value = "",
        global = true,
        allow_hyphen_values = true
    )]
    pub(crate) id: String,
    /// The User Name; an anonymous client without it
    #[arg(
        short,
        long,
        value_name = "NAME",
        global = true,
        allow_hyphen_values = true
    )]
    pub(crate) username: Option<String>,
    /// The client's tenant; none without it
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) tenant: Option<String>,
    /// The Common Name of the client's certificate
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) cert_cn: Option<String>,
    /// A Subject Alternative Name of the client's certificate (may be repeated)
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) cert_san: Vec<String>,
    /// A claim of the client's token (may be repeated)
    #[arg(long, value_name = "NAME=VALUE", global = true, value_parser = claim)]
    pub(crate) claim: Vec<(String, String)>,
    /// The QoS of the message, or asked for in the subscription
    #[arg(short, long, value_name = "QOS", default_value_t = 0, global = true, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: u8,
    /// The message has the RETAIN flag
    #[arg(short, long, global = true)]
    pub(crate) retain: bool,
}

/// What a client wants.
#[derive(Debug, Subcommand)]
pub(crate) enum Wish {
    /// To publish a message, or to leave it as its Will
    Publish {
        /// Its Topic Name
        topic: TopicNameBuf,
    },
    /// To subscribe
    Subscribe {
        /// The Topic Filter
        filter: TopicFilterBuf,
    },
    /// To be sent a message that it has subscribed to
    Deliver {
        /// Its Topic Name
        topic: TopicNameBuf,
    },
}

#[derive(Debug, Args)]
#[command(after_help = CERTIFICATES_EXAMPLES)]
pub(crate) struct CertificatesArgs {
    /// The folder for the files; it is made when it is missing
    pub(crate) folder: PathBuf,
    /// A host name or address of the broker (may be repeated) [default: localhost, 127.0.0.1, ::1]
    #[arg(long, value_name = "HOST")]
    pub(crate) server: Vec<String>,
    /// A client that gets a certificate (may be repeated); without --server, the broker gets none
    #[arg(long, value_name = "NAME", value_parser = client_name)]
    pub(crate) client: Vec<String>,
    /// How long the certificates last, in days; the authority lasts ten years
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=3_650))]
    pub(crate) days: u16,
}

fn client_name(name: &str) -> Result<String, String> {
    let taken = matches!(name, "" | "ca" | "broker");
    if taken || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        return Err("a name of a file that is not ca or broker".to_owned());
    }
    Ok(name.to_owned())
}

fn claim(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a claim is NAME=VALUE")?;
    if name.is_empty() {
        return Err("a claim has a name: NAME=VALUE".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}
