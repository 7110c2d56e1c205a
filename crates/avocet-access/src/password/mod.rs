//! Password files: who is who by a User Name and a Password.

mod file;
mod hash;

pub use file::{
    PasswordFile, PasswordFileError, PasswordFileProblem, PasswordVerdict, UserError, check_user,
};
pub use hash::{Cost, HashError, PASSWORD_BYTES_MAX, PasswordError, PasswordHash};
