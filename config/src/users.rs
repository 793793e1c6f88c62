//! Who may log in, and the secret that proves it. Secrets have no Debug form.

use std::fmt;

/// Somebody who may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name as the client gives it.
    pub name: String,
    /// What the client must know.
    pub secret: UserSecret,
}

/// What proves a user. Debug shows only which of the two it is.
#[derive(Clone, PartialEq, Eq)]
pub enum UserSecret {
    /// A password.
    Password(String),
    /// What a server needs to check a password that it does not know, as PostgreSQL stores it:
    /// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.
    ScramVerifier(String),
}

impl fmt::Debug for UserSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            UserSecret::Password(_) => "password",
            UserSecret::ScramVerifier(_) => "scram verifier",
        })
    }
}

const VERIFIER_PREFIX: &str = "SCRAM-SHA-256$";

/// A user of this name and secret. The reason of an error never shows the secret.
pub(crate) fn user(name: &str, secret: &str) -> Result<User, String> {
    if name.is_empty() || name.contains('\0') {
        return Err("a user needs a name".to_owned());
    }
    if secret.is_empty() || secret.contains('\0') {
        return Err(format!("user {name} needs a password"));
    }
    let secret = match secret.strip_prefix(VERIFIER_PREFIX) {
        None => UserSecret::Password(secret.to_owned()),
        Some(rest) if is_verifier(rest) => UserSecret::ScramVerifier(secret.to_owned()),
        Some(_) => {
            return Err(format!(
                "the verifier of user {name} is not {VERIFIER_PREFIX}iterations:salt$StoredKey:ServerKey"
            ));
        }
    };
    Ok(User { name: name.to_owned(), secret })
}

/// `name:secret` entries parted by any of the separators. Lines that begin with `#` are comments.
pub(crate) fn parse_list(text: &str, separators: &[char]) -> Result<Vec<User>, String> {
    let mut users = Vec::new();
    for (place, entry) in text.split(separators).map(str::trim).enumerate() {
        if entry.is_empty() || entry.starts_with('#') {
            continue;
        }
        let Some((name, secret)) = entry.split_once(':') else {
            return Err(format!("entry {} is not name:password", place + 1));
        };
        users.push(user(name.trim(), secret)?);
    }
    Ok(users)
}

fn is_verifier(rest: &str) -> bool {
    let is_base64 = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
    };
    let Some((salting, keys)) = rest.split_once('$') else { return false };
    let Some((iterations, salt)) = salting.split_once(':') else { return false };
    let Some((stored, server)) = keys.split_once(':') else { return false };
    iterations.parse::<u32>().is_ok_and(|iterations| iterations > 0)
        && [salt, stored, server].into_iter().all(is_base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFIER: &str = "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy";

    #[test]
    fn entries_are_names_and_secrets() {
        let users = parse_list(
            &format!("ann:a:b, 민수:비밀\n# a comment\n\nbob:{VERIFIER}\n"),
            &[',', '\n'],
        )
        .unwrap();
        let expected = [
            User { name: "ann".into(), secret: UserSecret::Password("a:b".into()) },
            User { name: "민수".into(), secret: UserSecret::Password("비밀".into()) },
            User { name: "bob".into(), secret: UserSecret::ScramVerifier(VERIFIER.into()) },
        ];
        assert_eq!(users, expected);
    }

    #[test]
    fn broken_entries_are_refused_without_showing_them() {
        for text in ["hunter2", "ann:", ":hunter2", "ann:SCRAM-SHA-256$hunter2"] {
            let reason = parse_list(text, &[',']).unwrap_err();
            assert!(!reason.contains("hunter2"), "{reason}");
        }
    }

    #[test]
    fn debug_hides_secrets() {
        let shown =
            format!("{:?}", parse_list(&format!("ann:hunter2,bob:{VERIFIER}"), &[',']).unwrap());
        assert!(
            shown.contains("ann") && !shown.contains("hunter2") && !shown.contains("c3RvcmVk"),
            "{shown}"
        );
    }
}
