//! What the process may do: how many files it may open, and whose rights it has.

use avocet_broker::Config;
use tracing::{info, warn};

/// Files of the process that are no connections: the log and its segments, sockets of its own, files
/// that are being read.
#[cfg(unix)]
const OTHER_FILES: u64 = 64;

/// Allows as many connections as the system lets this process have: the lower limit that processes
/// start with is there for programs that use `select`.
pub(crate) fn raise_open_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        let mut current = limit.maximum;
        if limit.current != limit.maximum
            && let Err(error) = setrlimit(Resource::Nofile, raised)
        {
            warn!("cannot raise the limit on open files: {error}");
            current = limit.current;
        }
        match current {
            Some(files) => info!(
                "the system allows {files} open files: about {} connections",
                files.saturating_sub(OTHER_FILES)
            ),
            None => info!("the system allows any number of open files"),
        }
    }
}

/// Becomes the user of the configuration, if the process was started as root. It must have one thread,
/// as rights belong to threads.
///
/// Says in the log what became of it, and which files that user cannot read.
#[cfg(target_os = "linux")]
pub(crate) fn give_up(config: &Config) -> anyhow::Result<()> {
    use anyhow::{Context as _, bail};
    use rustix::process::{Uid, geteuid};

    let root = geteuid().is_root();
    let Some(user) = &config.user else {
        if root {
            warn!(
                "runs as root, which is not needed: set `user` to a user that may write to `data_dir`"
            );
        }
        return Ok(());
    };
    let passwd = std::fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let group = std::fs::read_to_string("/etc/group").context("cannot read /etc/group")?;
    let account = Account::find(user, config.group.as_deref(), &passwd, &group)?;
    if !root {
        if Uid::from_raw(account.uid) != geteuid() {
            warn!("was not started as root, so `user = {user:?}` has no effect");
        }
        return Ok(());
    }
    if account.uid == 0 {
        return Ok(());
    }
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        bail!("cannot become user {user}: there are {threads} threads already");
    }
    account
        .become_it()
        .with_context(|| format!("cannot become user {user}"))?;
    info!("runs as user {user}");
    if let Err(error) = config.check_files() {
        warn!("user {user} cannot read files again when they change: {error}");
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
#[expect(
    clippy::unnecessary_wraps,
    reason = "elsewhere it fails when the user is not known"
)]
pub(crate) fn give_up(_: &Config) -> anyhow::Result<()> {
    Ok(())
}

/// A user, with the groups that it gets.
#[cfg(target_os = "linux")]
#[derive(Debug, PartialEq, Eq)]
struct Account {
    uid: u32,
    gid: u32,
    /// With `gid`.
    groups: Vec<u32>,
}

#[cfg(target_os = "linux")]
impl Account {
    /// Looks up names, or numbers, in what /etc/passwd and /etc/group say.
    fn find(user: &str, group: Option<&str>, passwd: &str, groups: &str) -> anyhow::Result<Self> {
        use anyhow::Context as _;

        // name:password:uid:gid:...
        let lines = || {
            passwd
                .lines()
                .map(|line| line.split(':').collect::<Vec<_>>())
        };
        let known =
            lines().find(|fields| fields.first() == Some(&user) || fields.get(2) == Some(&user));
        let (name, uid, own) = match known.as_deref() {
            Some([name, _, uid, gid, ..]) => (Some(*name), uid.parse().ok(), gid.parse().ok()),
            _ => (None, user.parse().ok(), None),
        };
        let uid = uid.with_context(|| format!("there is no user {user} in /etc/passwd"))?;
        // name:password:gid:members
        let lines = || {
            groups
                .lines()
                .map(|line| line.split(':').collect::<Vec<_>>())
        };
        if let Some(group) = group {
            let known = lines().find(|fields| fields.first() == Some(&group));
            let number = known.as_ref().and_then(|fields| fields.get(2));
            let gid = number.copied().unwrap_or(group).parse().ok();
            let gid = gid.with_context(|| format!("there is no group {group} in /etc/group"))?;
            return Ok(Self {
                uid,
                gid,
                groups: vec![gid],
            });
        }
        let gid: u32 = own.with_context(|| {
            format!("user {user} is not in /etc/passwd, so `group` must be set too")
        })?;
        let is_member = |fields: &Vec<&str>| {
            let mut members = fields
                .get(3)
                .into_iter()
                .flat_map(|members| members.split(','));
            name.is_some_and(|name| members.any(|member| member == name))
        };
        let numbers = lines().filter(is_member);
        let numbers = numbers.filter_map(|fields| fields.get(2)?.parse().ok());
        let mut groups = vec![gid];
        groups.extend(numbers.filter(|number: &u32| *number != gid));
        Ok(Self { uid, gid, groups })
    }

    /// There is no way back: this fails if there were one.
    fn become_it(&self) -> anyhow::Result<()> {
        use rustix::process::{Gid, Uid};
        use rustix::thread::{
            set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
            set_thread_uid,
        };

        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        set_no_new_privs(true)?;
        if set_thread_uid(Uid::ROOT).is_ok() {
            anyhow::bail!("the system gave root's rights back");
        }
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\navocet:x:999:990::/:/usr/sbin/nologin\n";
    const GROUP: &str =
        "root:x:0:\ntls:x:105:ann,avocet\navocet:x:990:avocet\nothers:x:106:avocetta\n";

    fn find(user: &str, group: Option<&str>) -> Result<(u32, u32, Vec<u32>), String> {
        let found = Account::find(user, group, PASSWD, GROUP);
        let found = found.map(|it| (it.uid, it.gid, it.groups));
        found.map_err(|error| error.to_string())
    }

    #[test]
    fn a_user_has_its_own_groups_or_the_one_that_is_named() {
        for user in ["avocet", "999"] {
            assert_eq!(find(user, None), Ok((999, 990, vec![990, 105])));
            assert_eq!(find(user, Some("tls")), Ok((999, 105, vec![105])));
        }
        assert_eq!(find("root", None), Ok((0, 0, vec![0])));
        assert_eq!(find("7", Some("8")), Ok((7, 8, vec![8])));
    }

    #[test]
    fn who_is_not_there_is_named() {
        for (user, group, expected) in [
            ("nemo", None, "there is no user nemo in /etc/passwd"),
            ("-1", None, "there is no user -1 in /etc/passwd"),
            ("", None, "there is no user  in /etc/passwd"),
            (
                "avocet",
                Some("crew"),
                "there is no group crew in /etc/group",
            ),
            (
                "7",
                None,
                "user 7 is not in /etc/passwd, so `group` must be set too",
            ),
        ] {
            assert_eq!(find(user, group), Err(expected.to_owned()));
        }
    }
}
