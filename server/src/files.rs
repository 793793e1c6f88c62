//! Which files a statement may read and write: the data roots, and everything that turns a path in a statement into a path that
//! is opened.
//!
//! A path is made canonical first (links followed, `..` taken away) and compared with the canonical roots after that,
//! so neither `..` nor a link leads out. What is opened is the canonical path. A path that is missing is told apart from
//! one that is forbidden only below a root: outside of them the answer is always the same, so that nobody can ask which
//! files this machine has.
//!
//! What is written is written whole or not at all: into a file with a name of its own in the same folder, which then takes the name that was
//! asked for. The folder must be there and lie inside a root, as for reading, and the last part of the path is never followed: a link there
//! is refused, and one that appears meanwhile is replaced, not written through.
//!
//! Left out: protection against someone who can *write* inside a data root and swaps a folder for a link between the
//! check and the opening. Whoever fills the data roots is trusted with what the server can read of them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use thanosql_protocol::{SqlError, SqlState};

/// What a folder is searched for when a statement names no file types: the image formats that are read.
pub const IMAGE_EXTENSIONS: &[&str] =
    &[".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".pbm", ".pgm", ".ppm", ".pnm"];

/// How deep a recursive listing goes before it gives up.
const MAX_FOLDER_DEPTH: usize = 64;

const HINT: &str =
    "The folders that statements may read are named with --data-root when the server starts.";

/// A data root that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataRootError {
    /// It does not exist or cannot be entered.
    #[error("cannot use the data root {}", path.display())]
    Unusable {
        /// The folder as configured.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is a file.
    #[error("the data root {} is not a folder", path.display())]
    NotAFolder {
        /// The path as configured.
        path: PathBuf,
    },
}

/// The folders that statements may read. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileAccess {
    /// Canonical.
    roots: Arc<[PathBuf]>,
}

impl FileAccess {
    /// Takes the configured folders; each must exist.
    pub fn new(roots: &[PathBuf]) -> Result<FileAccess, DataRootError> {
        let mut canonical = Vec::with_capacity(roots.len());
        for root in roots {
            let path = root
                .canonicalize()
                .map_err(|source| DataRootError::Unusable { path: root.clone(), source })?;
            if !path.is_dir() {
                return Err(DataRootError::NotAFolder { path: root.clone() });
            }
            canonical.push(path);
        }
        Ok(FileAccess { roots: canonical.into() })
    }

    /// The canonical data roots.
    pub fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    /// The canonical path of an existing file or folder inside a data root. A relative path is looked for below each
    /// root in turn.
    ///
    /// Errors: 42501 outside every root, 58P01 if nothing is there. Touches the disk: not for the async threads.
    pub fn resolve(&self, path: &str) -> Result<PathBuf, SqlError> {
        if self.roots.is_empty() {
            return Err(SqlError::new(
                SqlState::INSUFFICIENT_PRIVILEGE,
                format!("cannot read \"{path}\": no data root is configured"),
            )
            .with_hint(HINT));
        }
        if path.is_empty() {
            return Err(SqlError::new(SqlState::UNDEFINED_FILE, "the path is empty"));
        }
        if path.contains('\0') {
            return Err(SqlError::new(
                SqlState::CHARACTER_NOT_IN_REPERTOIRE,
                "a path cannot hold the character with code zero",
            ));
        }
        if Path::new(path).is_absolute() {
            return self.resolve_absolute(path, Path::new(path));
        }
        let mut first_error = None;
        for root in self.roots.iter() {
            match self.resolve_absolute(path, &root.join(path)) {
                Ok(found) => return Ok(found),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.expect("there is at least one root, so the loop ran"))
    }

    /// Whether a path that was resolved once, perhaps by a server with other data roots, may still be read. What is missing may; opening it
    /// says so. `shown` is the path as it is named to people.
    ///
    /// # Errors
    /// 42501. Touches the disk: not for the async threads.
    pub fn allow_again(&self, resolved: &Path, shown: &str) -> Result<(), SqlError> {
        match resolved.canonicalize() {
            Ok(canonical) if self.contains(&canonical) => Ok(()),
            Err(_) if self.roots.iter().any(|root| resolved.starts_with(root)) => Ok(()),
            Ok(_) | Err(_) => Err(forbidden(shown)),
        }
    }

    fn resolve_absolute(&self, given: &str, path: &Path) -> Result<PathBuf, SqlError> {
        match path.canonicalize() {
            Ok(canonical) if self.contains(&canonical) => Ok(canonical),
            Ok(_) => Err(forbidden(given)),
            Err(error) => {
                if !self.nearest_existing_is_inside(path) {
                    return Err(forbidden(given));
                }
                Err(unreadable(given, &error))
            }
        }
    }

    fn contains(&self, canonical: &Path) -> bool {
        self.roots.iter().any(|root| canonical.starts_with(root))
    }

    /// Whether the deepest part of `path` that exists lies inside a root: only then may it be said that the rest is missing.
    fn nearest_existing_is_inside(&self, path: &Path) -> bool {
        path.ancestors()
            .skip(1)
            .find_map(|ancestor| ancestor.canonicalize().ok())
            .is_some_and(|existing| self.contains(&existing))
    }

    /// Where a new file goes: the path to be written, in a folder inside a data root. A relative path goes below the first root that has its
    /// folder.
    ///
    /// # Errors
    /// 42501 outside every root or for a link, 58P01 without the folder, 42809 where a folder is, 58P02 where a file is unless it may be
    /// replaced. Touches the disk: not for the async threads.
    pub fn target(&self, path: &str, replace: bool) -> Result<PathBuf, SqlError> {
        if self.roots.is_empty() {
            return Err(SqlError::new(
                SqlState::INSUFFICIENT_PRIVILEGE,
                format!("cannot write \"{path}\": no data root is configured"),
            )
            .with_hint(HINT));
        }
        if path.contains('\0') {
            return Err(SqlError::new(
                SqlState::CHARACTER_NOT_IN_REPERTOIRE,
                "a path cannot hold the character with code zero",
            ));
        }
        let names_no_file = Path::new(path).file_name().is_none()
            || path.ends_with(std::path::is_separator)
            || path.ends_with("/.");
        if names_no_file {
            return Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{path}\" does not name a file"),
            ));
        }
        if Path::new(path).is_absolute() {
            return self.target_absolute(path, Path::new(path), replace);
        }
        let mut first_error = None;
        for root in self.roots.iter() {
            match self.target_absolute(path, &root.join(path), replace) {
                Err(error)
                    if error.code == SqlState::UNDEFINED_FILE
                        || error.code == SqlState::INSUFFICIENT_PRIVILEGE =>
                {
                    first_error.get_or_insert(error);
                }
                answer => return answer,
            }
        }
        Err(first_error.expect("there is at least one root, so the loop ran"))
    }

    fn target_absolute(
        &self,
        given: &str,
        path: &Path,
        replace: bool,
    ) -> Result<PathBuf, SqlError> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(forbidden(given));
        };
        let folder = match folder.canonicalize() {
            Ok(folder) if self.contains(&folder) => folder,
            Ok(_) => return Err(forbidden(given)),
            Err(error) => {
                if !self.nearest_existing_is_inside(path) {
                    return Err(forbidden(given));
                }
                return Err(unreadable(&shown_folder(given), &error));
            }
        };
        let target = folder.join(name);
        match target.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder.is_dir() => Ok(target),
            Err(error) => Err(unreadable(given, &error)),
            Ok(found) if found.is_symlink() => Err(SqlError::new(
                SqlState::INSUFFICIENT_PRIVILEGE,
                format!("\"{given}\" is a link, which is not written through"),
            )),
            Ok(found) if !found.is_file() => Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{given}\" is there and is not a file"),
            )),
            Ok(_) if replace => Ok(target),
            Ok(_) => Err(taken(given)),
        }
    }

    /// Writes a file whole or not at all. `target` is what [`FileAccess::target`] answered for `given`.
    ///
    /// # Errors
    /// 58P02 for a file that appeared meanwhile unless it may be replaced, 53100 if the disk is full, and the operating system's.
    /// Blocking.
    pub fn write(
        &self,
        given: &str,
        target: &Path,
        bytes: &[u8],
        replace: bool,
    ) -> Result<(), SqlError> {
        let failed = |error: io::Error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                return taken(given);
            }
            let error = crate::error::io_error(&error);
            SqlError { message: format!("cannot write \"{given}\": {}", error.message), ..error }
        };
        let folder = target.parent().ok_or_else(|| forbidden(given))?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".thanosql-").suffix(".part");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // As any new file, not as a secret; the process's mask takes its share.
            builder.permissions(std::fs::Permissions::from_mode(0o644));
        }
        let mut file = builder.tempfile_in(folder).map_err(failed)?;
        file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        let kept = if replace { file.persist(target) } else { file.persist_noclobber(target) };
        kept.map_err(|error| failed(error.error))?;
        #[cfg(unix)]
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(())
    }

    /// The files of a folder whose names end in one of `extensions` (in any case, with or without the leading dot; none: the
    /// image formats that are read), sorted by path. The paths start with `folder` as it was given, so that they
    /// compare equal to paths that were written the same way elsewhere.
    ///
    /// Links are followed only where they stay inside the data roots. No matching file is an error (58P01) that says
    /// where it looked. Touches the disk: not for the async threads.
    pub fn list_folder(
        &self,
        folder: &str,
        extensions: &[String],
        recursive: bool,
    ) -> Result<Vec<String>, SqlError> {
        let canonical = self.resolve(folder)?;
        if !canonical.is_dir() {
            return Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{folder}\" is not a folder"),
            )
            .with_hint("path_type='file' reads a single file."));
        }
        let extensions: Vec<String> = if extensions.is_empty() {
            IMAGE_EXTENSIONS.iter().map(|e| (*e).to_owned()).collect()
        } else {
            extensions.iter().map(|e| normal_extension(e)).collect()
        };
        let mut listing = Listing {
            access: self,
            extensions: &extensions,
            recursive,
            visited: BTreeSet::new(),
            files: Vec::new(),
        };
        listing.walk(&canonical, folder.trim_end_matches('/'), 0)?;
        let mut files = listing.files;
        if files.is_empty() {
            let depth = if recursive {
                "and the folders below it"
            } else {
                "but not in the folders below it"
            };
            return Err(SqlError::new(
                SqlState::UNDEFINED_FILE,
                format!("no matching file in \"{folder}\""),
            )
            .with_detail(format!(
                "Looked in {} {depth} for names that end in {}.",
                canonical.display(),
                extensions.join(", ")
            )));
        }
        files.sort_unstable();
        Ok(files)
    }
}

/// A path without `.`, doubled and trailing slashes, as text: two spellings of one path that differ in nothing else
/// become equal. Links and `..` stay, because only the disk knows what they mean.
pub fn normal_path(path: &str) -> String {
    let mut normal = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::CurDir => {}
            Component::Prefix(_)
            | Component::RootDir
            | Component::ParentDir
            | Component::Normal(_) => {
                normal.push(component);
            }
        }
    }
    normal.to_string_lossy().into_owned()
}

/// The last part of a path: `a/b/7.jpg` gives `7.jpg`. The path itself if it has no such part.
pub fn file_name(path: &str) -> &str {
    Path::new(path).file_name().and_then(OsStr::to_str).unwrap_or(path)
}

/// The last part of a path, as people are shown it.
pub fn shown_name(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// Opens a file for reading from its start. `shown` is its name to people. Blocking.
///
/// # Errors
/// 42809 for what is no file, and the operating system's.
pub fn open_file(path: &Path, shown: &str) -> Result<File, SqlError> {
    let failed = |error: io::Error| {
        let error = crate::error::io_error(&error);
        SqlError { message: format!("cannot read \"{shown}\": {}", error.message), ..error }
    };
    // Looked at before it is opened: opening a pipe waits for whoever writes to it.
    if !path.metadata().map_err(failed)?.is_file() {
        return Err(SqlError::new(
            SqlState::WRONG_OBJECT_TYPE,
            format!("\"{shown}\" is not a file"),
        ));
    }
    File::open(path).map_err(failed)
}

fn normal_extension(extension: &str) -> String {
    let lower = extension.to_lowercase();
    if lower.starts_with('.') || lower.is_empty() { lower } else { format!(".{lower}") }
}

struct Listing<'a> {
    access: &'a FileAccess,
    extensions: &'a [String],
    recursive: bool,
    visited: BTreeSet<PathBuf>,
    files: Vec<String>,
}

impl Listing<'_> {
    /// `folder` is canonical, `shown` the same folder as the statement spells it.
    fn walk(&mut self, folder: &Path, shown: &str, depth: usize) -> Result<(), SqlError> {
        // A folder that a link leads back to is read once.
        if depth > MAX_FOLDER_DEPTH || !self.visited.insert(folder.to_owned()) {
            return Ok(());
        }
        let entries = std::fs::read_dir(folder).map_err(|error| unreadable(shown, &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(shown, &error))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                if self.matches(&name.to_string_lossy()) {
                    return Err(SqlError::new(
                        SqlState::CHARACTER_NOT_IN_REPERTOIRE,
                        format!(
                            "the name of the file \"{}\" in \"{shown}\" is not UTF-8",
                            name.to_string_lossy()
                        ),
                    ));
                }
                continue;
            };
            let mut file_type = entry.file_type().map_err(|error| unreadable(shown, &error))?;
            let mut path = entry.path();
            if file_type.is_symlink() {
                // A dangling link, or one that leaves the roots, is no file of this folder.
                let Ok(target) = path.canonicalize() else { continue };
                if !self.access.contains(&target) {
                    continue;
                }
                let Ok(metadata) = target.metadata() else { continue };
                file_type = metadata.file_type();
                path = target;
            }
            let shown_path = format!("{shown}/{name}");
            if file_type.is_dir() {
                if self.recursive {
                    self.walk(&path, &shown_path, depth + 1)?;
                }
            } else if file_type.is_file() && self.matches(name) {
                self.files.push(shown_path);
            }
        }
        Ok(())
    }

    fn matches(&self, name: &str) -> bool {
        let lower = name.to_lowercase();
        self.extensions.iter().any(|extension| lower.ends_with(extension))
    }
}

/// The folder of a path, as the statement spells it.
fn shown_folder(path: &str) -> String {
    Path::new(path)
        .parent()
        .map_or_else(String::new, |folder| folder.to_string_lossy().into_owned())
}

fn taken(path: &str) -> SqlError {
    SqlError::new(SqlState::DUPLICATE_FILE, format!("the file \"{path}\" already exists"))
        .with_hint("OPTIONS (overwrite=True) replaces it.")
}

fn forbidden(path: &str) -> SqlError {
    SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("\"{path}\" is outside the data roots"))
        .with_hint(HINT)
}

fn unreadable(path: &str, error: &io::Error) -> SqlError {
    if error.kind() == io::ErrorKind::NotFound || error.kind() == io::ErrorKind::NotADirectory {
        SqlError::new(SqlState::UNDEFINED_FILE, format!("\"{path}\" does not exist"))
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        SqlError::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("the server may not read \"{path}\""),
        )
        .with_hint(
            "The operating system's permissions of the file or of a folder above it forbid it.",
        )
    } else {
        SqlError::new(SqlState::IO_ERROR, format!("cannot read \"{path}\": {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, FileAccess, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("숫자/하위")).unwrap();
        std::fs::create_dir_all(folder.path().join("outside")).unwrap();
        std::fs::write(folder.path().join("outside/secret.jpg"), b"s").unwrap();
        for name in ["숫자/2.jpg", "숫자/10.JPG", "숫자/글.txt", "숫자/하위/3.jpg"] {
            std::fs::write(root.join(name), b"x").unwrap();
        }
        let access = FileAccess::new(std::slice::from_ref(&root)).unwrap();
        (folder, access, root)
    }

    #[test]
    fn reads_inside_and_refuses_outside() {
        let (folder, access, root) = tree();
        let inside = root.join("숫자/2.jpg");
        let text = inside.to_str().unwrap();
        assert_eq!(access.resolve(text).unwrap(), inside.canonicalize().unwrap());
        assert_eq!(access.resolve("숫자/2.jpg").unwrap(), inside.canonicalize().unwrap());
        let check = |path: String, code: SqlState| {
            let error = access.resolve(&path).unwrap_err();
            assert_eq!(error.code, code, "{path}: {error}");
        };
        check(
            format!("{}/../outside/secret.jpg", root.display()),
            SqlState::INSUFFICIENT_PRIVILEGE,
        );
        check(
            format!("{}/outside/secret.jpg", folder.path().display()),
            SqlState::INSUFFICIENT_PRIVILEGE,
        );
        // Outside, what is missing looks like what is forbidden.
        check(
            format!("{}/outside/missing.jpg", folder.path().display()),
            SqlState::INSUFFICIENT_PRIVILEGE,
        );
        check(format!("{}/missing/deeper.jpg", root.display()), SqlState::UNDEFINED_FILE);
        check("../outside/secret.jpg".to_owned(), SqlState::INSUFFICIENT_PRIVILEGE);
        check(String::new(), SqlState::UNDEFINED_FILE);
        check("a\0b".to_owned(), SqlState::CHARACTER_NOT_IN_REPERTOIRE);
    }

    #[test]
    fn a_neighbour_whose_name_starts_like_a_root_is_outside() {
        let (folder, access, root) = tree();
        let neighbour = folder.path().join("root2");
        std::fs::create_dir(&neighbour).unwrap();
        let error = access.resolve(neighbour.to_str().unwrap()).unwrap_err();
        assert_eq!(error.code, SqlState::INSUFFICIENT_PRIVILEGE);
        assert!(access.resolve(root.to_str().unwrap()).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn links_do_not_lead_out() {
        let (folder, access, root) = tree();
        std::os::unix::fs::symlink(folder.path().join("outside"), root.join("숫자/link")).unwrap();
        std::os::unix::fs::symlink(
            folder.path().join("outside/secret.jpg"),
            root.join("숫자/link.jpg"),
        )
        .unwrap();
        std::os::unix::fs::symlink(root.join("숫자"), root.join("숫자/하위/loop")).unwrap();
        std::os::unix::fs::symlink(root.join("숫자/2.jpg"), root.join("숫자/good.jpg")).unwrap();
        for path in ["숫자/link/secret.jpg", "숫자/link/missing.jpg", "숫자/link.jpg"] {
            let error = access.resolve(path).unwrap_err();
            assert_eq!(error.code, SqlState::INSUFFICIENT_PRIVILEGE, "{path}");
            assert!(error.hint.unwrap().contains("--data-root"));
        }
        let files = access.list_folder("숫자", &[".jpg".to_owned()], true).unwrap();
        assert_eq!(files, ["숫자/10.JPG", "숫자/2.jpg", "숫자/good.jpg", "숫자/하위/3.jpg"]);
    }

    #[test]
    fn writes_inside_whole_and_over_nothing_unasked() {
        let (folder, access, root) = tree();
        let write = |path: &str, replace: bool, bytes: &[u8]| {
            let target = access.target(path, replace)?;
            access.write(path, &target, bytes, replace).map(|()| target)
        };
        let canonical = root.canonicalize().unwrap();
        let path = format!("{}/숫자/../숫자/new.bin", root.display());
        assert_eq!(write(&path, false, b"one").unwrap(), canonical.join("숫자/new.bin"));
        assert_eq!(write("top.bin", false, b"two").unwrap(), canonical.join("top.bin"));
        let error = write("숫자/new.bin", false, b"three").unwrap_err();
        assert_eq!(error.code, SqlState::DUPLICATE_FILE);
        assert!(error.hint.unwrap().contains("overwrite"));
        assert_eq!(std::fs::read(root.join("숫자/new.bin")).unwrap(), b"one");
        write("숫자/new.bin", true, b"three").unwrap();
        assert_eq!(std::fs::read(root.join("숫자/new.bin")).unwrap(), b"three");
        // One that appears between the look and the writing is not replaced either.
        let target = access.target("late.bin", false).unwrap();
        std::fs::write(&target, b"first").unwrap();
        let error = access.write("late.bin", &target, b"second", false).unwrap_err();
        assert_eq!(error.code, SqlState::DUPLICATE_FILE);
        assert_eq!(std::fs::read(&target).unwrap(), b"first");

        let outside = folder.path().join("outside");
        for (path, code) in [
            (format!("{}/x", outside.display()), SqlState::INSUFFICIENT_PRIVILEGE),
            (format!("{}/../outside/x", root.display()), SqlState::INSUFFICIENT_PRIVILEGE),
            ("../outside/x".to_owned(), SqlState::INSUFFICIENT_PRIVILEGE),
            (format!("{}/missing/x", outside.display()), SqlState::INSUFFICIENT_PRIVILEGE),
            ("missing/x".to_owned(), SqlState::UNDEFINED_FILE),
            ("숫자/2.jpg/x".to_owned(), SqlState::UNDEFINED_FILE),
            ("숫자".to_owned(), SqlState::WRONG_OBJECT_TYPE),
            ("숫자/x/".to_owned(), SqlState::WRONG_OBJECT_TYPE),
            ("숫자/..".to_owned(), SqlState::WRONG_OBJECT_TYPE),
            (String::new(), SqlState::WRONG_OBJECT_TYPE),
            ("/".to_owned(), SqlState::WRONG_OBJECT_TYPE),
            ("a\0b".to_owned(), SqlState::CHARACTER_NOT_IN_REPERTOIRE),
        ] {
            let error = access.target(&path, true).unwrap_err();
            assert_eq!(error.code, code, "{path}: {error}");
        }
        let error = FileAccess::default().target("x", false).unwrap_err();
        assert_eq!(error.code, SqlState::INSUFFICIENT_PRIVILEGE);
        let left: Vec<_> =
            std::fs::read_dir(&root).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().contains("thanosql")), "{left:?}");
    }

    #[cfg(unix)]
    #[test]
    fn writing_follows_no_link() {
        let (folder, access, root) = tree();
        let outside = folder.path().join("outside");
        std::os::unix::fs::symlink(&outside, root.join("folder")).unwrap();
        std::os::unix::fs::symlink(outside.join("secret.jpg"), root.join("file")).unwrap();
        std::os::unix::fs::symlink(outside.join("new"), root.join("dangling")).unwrap();
        std::os::unix::fs::symlink(root.join("숫자"), root.join("inside")).unwrap();
        for path in ["folder/x", "file", "dangling"] {
            let error = access.target(path, true).unwrap_err();
            assert_eq!(error.code, SqlState::INSUFFICIENT_PRIVILEGE, "{path}");
        }
        let target = access.target("inside/x", false).unwrap();
        assert_eq!(target, root.canonicalize().unwrap().join("숫자/x"));
        // A link that appears after the look is replaced, not followed.
        std::os::unix::fs::symlink(outside.join("secret.jpg"), &target).unwrap();
        access.write("inside/x", &target, b"new", true).unwrap();
        assert_eq!(std::fs::read(outside.join("secret.jpg")).unwrap(), b"s");
        assert!(!target.symlink_metadata().unwrap().is_symlink());
    }

    #[test]
    fn what_was_allowed_once_is_asked_for_again() {
        let (folder, access, root) = tree();
        let file = access.resolve("숫자/2.jpg").unwrap();
        assert!(access.allow_again(&file, "2").is_ok());
        assert!(access.allow_again(&file.with_file_name("gone.jpg"), "gone").is_ok());
        let other = FileAccess::new(&[folder.path().join("outside")]).unwrap();
        for file in [file.clone(), file.with_file_name("gone.jpg")] {
            let error = other.allow_again(&file, "2").unwrap_err();
            assert_eq!(error.code, SqlState::INSUFFICIENT_PRIVILEGE);
        }
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(root.join("../outside/secret.jpg"), &file).unwrap();
        assert!(access.allow_again(&file, "2").is_err(), "it has become a link that leads out");
    }

    #[test]
    fn lists_in_order_and_says_where_it_looked() {
        let (_folder, access, root) = tree();
        let given = format!("{}/숫자/", root.display());
        let files = access.list_folder(&given, &["jpg".to_owned()], false).unwrap();
        assert_eq!(files, [format!("{given}10.JPG"), format!("{given}2.jpg")]);
        let error = access.list_folder(&given, &[".png".to_owned()], true).unwrap_err();
        assert_eq!(error.code, SqlState::UNDEFINED_FILE);
        assert!(error.detail.unwrap().contains(".png"));
        let error = access.list_folder("숫자/2.jpg", &[], true).unwrap_err();
        assert_eq!(error.code, SqlState::WRONG_OBJECT_TYPE);
    }

    #[test]
    fn without_roots_nothing_is_read() {
        let error = FileAccess::default().resolve("/").unwrap_err();
        assert_eq!(error.code, SqlState::INSUFFICIENT_PRIVILEGE);
        assert!(error.hint.unwrap().contains("--data-root"));
    }

    #[test]
    fn spellings_of_one_path() {
        assert_eq!(normal_path("/a//b/./c/"), "/a/b/c");
        assert_eq!(normal_path("/a/../b"), "/a/../b");
        assert_eq!(file_name("/a/숫자/7.jpg"), "7.jpg");
        assert_eq!(file_name("/"), "/");
    }
}
