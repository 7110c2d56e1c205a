//! `avocet passwd`: the users of a password file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use avocet_access::{
    Cost, PASSWORD_BYTES_MAX, PasswordFile, PasswordHash, PasswordVerdict, check_user,
};

use crate::access_args::PasswdArgs;
use crate::exit::Failure;

pub(crate) fn run(args: &PasswdArgs) -> Result<(), Failure> {
    let (mut users, path) = load(args)?;
    if args.list {
        return list(&users);
    }
    let user = args.user.as_deref().unwrap_or_default();
    check_user(user).map_err(|error| Failure::new(error.to_string()))?;
    if args.check {
        let password = password(args, false)?;
        return match users.verify(user, &password) {
            PasswordVerdict::Accepted { .. } => Ok(()),
            PasswordVerdict::Refused => Err(Failure::Denied),
        };
    }
    if args.delete {
        if !users.remove(user) {
            let file = path.display();
            return Err(Failure::new(format!("no user {user:?} in {file}")));
        }
        return save(&path, &users);
    }
    let password = password(args, true)?;
    let mut salt = [0; 16];
    getrandom::fill(&mut salt)
        .map_err(|error| Failure::new(format!("the system gives no random bytes: {error}")))?;
    let hash = if args.scram {
        PasswordHash::scram(&password, salt)
    } else {
        PasswordHash::argon2id(&password, salt, Cost::default())
    };
    let hash = hash.map_err(|error| Failure::new(error.to_string()))?;
    users
        .set(user, hash)
        .map_err(|error| Failure::new(error.to_string()))?;
    save(&path, &users)
}

/// The users of the file, and where it really is. One that is to be made has none.
fn load(args: &PasswdArgs) -> Result<(PasswordFile, PathBuf), Failure> {
    let changes_only = args.list || args.delete || args.check;
    match fs::read_to_string(&args.file) {
        Ok(text) => {
            let users = PasswordFile::parse(&text).map_err(|error| {
                let (file, line, problem) = (args.file.display(), error.line, error.problem);
                Failure::new(format!("{file}:{line}: {problem}"))
            })?;
            // A symbolic link stays one.
            let path = fs::canonicalize(&args.file).unwrap_or_else(|_| args.file.clone());
            Ok((users, path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !changes_only => {
            Ok((PasswordFile::default(), args.file.clone()))
        }
        Err(error) => {
            let file = args.file.display();
            Err(Failure::new(format!("cannot read {file}: {error}")))
        }
    }
}

fn list(users: &PasswordFile) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for user in users.users() {
        let Some(hash) = users.hash(user) else {
            continue;
        };
        let advice = if hash.is_outdated() {
            ", outdated: set the password anew"
        } else {
            ""
        };
        writeln!(out, "{user}: {}{advice}", hash.algorithm()).map_err(Failure::output)?;
    }
    out.flush().map_err(Failure::output)
}

/// From the arguments, a terminal that does not show it, or the first line of standard input.
fn password(args: &PasswdArgs, new: bool) -> Result<Vec<u8>, Failure> {
    if let Some(password) = &args.password {
        return Ok(password.clone().into_bytes());
    }
    if io::stdin().is_terminal() {
        let ask = |prompt| {
            rpassword::prompt_password(prompt)
                .map_err(|error| Failure::new(format!("cannot read the password: {error}")))
        };
        let password = ask("Password: ")?;
        if new && ask("Again: ")? != password {
            return Err(Failure::new(
                "the two are not the same; nothing was changed",
            ));
        }
        return Ok(password.into_bytes());
    }
    let mut line = Vec::new();
    let longest = u64::try_from(PASSWORD_BYTES_MAX).unwrap_or(u64::MAX);
    let mut input = io::stdin().lock().take(longest.saturating_add(3));
    input
        .read_until(b'\n', &mut line)
        .map_err(|error| Failure::new(format!("cannot read standard input: {error}")))?;
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    Ok(line)
}

/// Puts a new file in the place of the old one: whoever reads sees one or the other, whole.
fn save(path: &Path, users: &PasswordFile) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        Failure::new(format!(
            "cannot write {}: {error}; nothing was changed",
            path.display()
        ))
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = write(&beside, path, users).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        // It may not even be there.
        let _ = fs::remove_file(&beside);
        return Err(failed(error));
    }
    // The name survives a loss of power once its folder is on disk; not every system can say so.
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        Some(_) | None => Path::new("."),
    };
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

fn write(beside: &Path, path: &Path, users: &PasswordFile) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(beside)?;
    #[cfg(unix)]
    keep_owner(&file, path, 0o600)?;
    #[cfg(not(unix))]
    let _ = path;
    file.write_all(users.to_string().as_bytes())?;
    file.sync_all()
}

/// Whoever could read the old file, the broker for one, can read the new one, and others as `mode` says.
#[cfg(unix)]
pub(crate) fn keep_owner(file: &File, path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let Ok(old) = fs::metadata(path) else {
        return Ok(());
    };
    let new = file.metadata()?;
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        fchown(file, Some(old.uid()), Some(old.gid()))?;
    }
    let mode = mode | old.mode() & 0o040;
    file.set_permissions(fs::Permissions::from_mode(mode))
}
