//! The arguments of `avocet passwd` and `avocet acl`.

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

fn claim(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a claim is NAME=VALUE")?;
    if name.is_empty() {
        return Err("a claim has a name: NAME=VALUE".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}
