//! From what was written to what the server runs with.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgMatches;

use crate::command;
use crate::error::ConfigError;
use crate::file::{self, FileValues};
use crate::table::{ENVIRONMENT_PREFIX, Kind, SETTINGS, Setting, setting};
use crate::users::{self, User};
use crate::{Invocation, value};

/// The variable that names the configuration file.
const CONFIG_VARIABLE: &str = "THANOSQL_CONFIG";

/// Everything that the server can be told. The units are in the types and the names.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` to listen on; port 0 takes a free one.
    pub listen: String,
    /// Where tables, models and jobs are kept. An absolute path; the folder may yet have to be made.
    pub store: PathBuf,
    /// The folders that statements may read and export to. Absolute, without links, there. [`Settings::dataset_dir`] is one more.
    pub data_roots: Vec<PathBuf>,
    /// Where fetched and drawn datasets are put; always a data root. Absolute; the folder may yet have to be made.
    pub dataset_dir: PathBuf,
    /// The folder with MNIST's files, an http or https address. None is off.
    pub dataset_url: Option<String>,
    /// The index of published models, an http or https address. None is off.
    pub model_url: Option<String>,
    /// Connections at a time.
    pub max_connections: usize,
    /// Longest message of a client.
    pub max_message_bytes: usize,
    /// How long a client may take to log in.
    pub login_timeout: Duration,
    /// How long a statement may run unless its session says otherwise. None is for ever.
    pub statement_timeout: Option<Duration>,
    /// Certificate and key, if TLS is on.
    pub tls: Option<TlsFiles>,
    /// Who may log in.
    pub users: Vec<User>,
    /// Whether clients of this machine need no password.
    pub trust_loopback: bool,
    /// `auto`, `cpu`, `wgpu` or `wgpu:N`.
    pub device: String,
    /// `auto` or `full`.
    pub precision: &'static str,
    /// Cache of the key-value store.
    pub sled_cache_bytes: u64,
    /// Decoded columns kept.
    pub column_cache_bytes: u64,
    /// Models kept ready.
    pub model_cache_bytes: u64,
    /// Indexes over vectors kept ready.
    pub index_memory_bytes: u64,
    /// Memory that all running queries share.
    pub query_memory_bytes: u64,
    /// Memory for a training's images.
    pub training_memory_bytes: u64,
    /// Largest image file or value.
    pub max_image_bytes: u64,
    /// Most pixels of an image.
    pub max_image_pixels: u64,
    /// Largest width or height of an image in pixels.
    pub max_image_side: u32,
    /// Largest training set.
    pub max_training_bytes: u64,
    /// Largest model's file that is read.
    pub max_model_file_bytes: u64,
    /// Weights to start from.
    pub pretrained_resnet18: Option<PathBuf>,
    /// Jobs that have ended and are kept.
    pub finished_jobs: usize,
    /// What is logged, and how.
    pub log: LogSettings,
    /// What is not wrong and yet probably not meant, for the log.
    pub warnings: Vec<String>,
    reported: Vec<Reported>,
}

impl Settings {
    /// Each setting with its value as it was written and where that came from, in the table's order. Secrets are not shown.
    pub fn reported(&self) -> &[Reported] {
        &self.reported
    }
}

/// Where the parts of TLS are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain in PEM.
    pub certificate: PathBuf,
    /// Private key in PEM.
    pub private_key: PathBuf,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Levels by module, as `tracing` writes them.
    pub filter: String,
    /// How a line is written.
    pub format: LogFormat,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: a JSON object a line.
    Json,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag on the command line.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => formatter.write_str("the default"),
            Source::File(path) => write!(formatter, "from {}", path.display()),
            Source::Environment(variable) => write!(formatter, "from {variable}"),
            Source::Flag(flag) => write!(formatter, "from --{flag}"),
        }
    }
}

/// A setting as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The setting's key.
    pub key: &'static str,
    /// Its value as it was written; empty if there is none.
    pub value: String,
    /// Where the value came from.
    pub source: Source,
}

/// What `thanosql demo` runs with.
#[derive(Clone, Debug)]
pub struct DemoSettings {
    /// Digits to train with.
    pub images: usize,
    /// Passes over them.
    pub epochs: u32,
    /// Seed of the digits and of the training.
    pub seed: u64,
    /// Whether the folder with images and store stays.
    pub keep: bool,
    /// `auto`, `cpu`, `wgpu` or `wgpu:N`.
    pub device: String,
    /// What is logged, and how: warnings, unless more is asked for, so that the demo can be read.
    pub log: LogSettings,
}

impl DemoSettings {
    /// The settings of the demo's own server: a free port of this machine, these folders, otherwise the defaults. The folders must
    /// be there.
    ///
    /// # Errors
    /// [`ConfigError::Value`] if a folder cannot be used.
    pub fn server(&self, store: &Path, data_root: &Path) -> Result<Settings, ConfigError> {
        let given = Given {
            flags: BTreeMap::from([
                ("listen", vec!["127.0.0.1:0".into()]),
                ("store", vec![store.into()]),
                ("data_root", vec![data_root.into()]),
                ("dataset_dir", vec![data_root.into()]),
                ("device", vec![self.device.clone().into()]),
            ]),
            environment: &BTreeMap::new(),
            file: None,
        };
        Ok(Settings { log: self.log.clone(), ..given.settings()? })
    }
}

/// What `thanosql healthcheck` runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthcheckSettings {
    /// `host:port` to connect to: where the server listens, by the way of this machine if it listens everywhere.
    pub address: String,
    /// How long to wait for an answer.
    pub timeout: Duration,
}

pub(crate) fn serve(
    matches: &ArgMatches,
    environment: &BTreeMap<String, OsString>,
) -> Result<Invocation, ConfigError> {
    let given = Given::gather(matches, environment, SETTINGS)?;
    Ok(Invocation::Serve(Box::new(given.settings()?)))
}

pub(crate) fn demo(
    matches: &ArgMatches,
    environment: &BTreeMap<String, OsString>,
) -> Result<Invocation, ConfigError> {
    let wanted = command::DEMO_SETTINGS.map(|key| *setting(key));
    let given = Given { flags: flags(matches, &wanted), environment, file: None };
    let number = |name: &str| {
        matches.get_one::<u64>(name).copied().expect("every number of the demo has a default")
    };
    let mut log = given.log()?;
    if given.find(setting("log_filter")).1 == Source::Default {
        log.filter = command::DEMO_LOG_FILTER.to_owned();
    }
    Ok(Invocation::Demo(Box::new(DemoSettings {
        images: number(command::IMAGES) as usize,
        epochs: number(command::EPOCHS) as u32,
        seed: number(command::SEED),
        keep: matches.get_flag(command::KEEP),
        device: given.parsed("device", value::device)?,
        log,
    })))
}

pub(crate) fn healthcheck(
    matches: &ArgMatches,
    environment: &BTreeMap<String, OsString>,
) -> Result<Invocation, ConfigError> {
    let given = Given::gather(matches, environment, &[*setting("listen")])?;
    let listen = given.parsed("listen", value::address)?;
    let timeout = matches.get_one::<OsString>(command::TIMEOUT).map(|text| text.to_string_lossy());
    let timeout = timeout.as_deref().unwrap_or("3 s");
    let timeout = value::time(timeout, false).map_err(|reason| ConfigError::Value {
        setting: command::TIMEOUT,
        value: timeout.to_owned(),
        source_of: Source::Flag(command::TIMEOUT.to_owned()),
        reason,
    })?;
    let timeout = timeout.expect("this time cannot be off");
    Ok(Invocation::Healthcheck(HealthcheckSettings { address: reachable(&listen), timeout }))
}

/// An address that listens everywhere is reached at this machine's own.
fn reachable(listen: &str) -> String {
    match listen.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        Some(_) | None => listen.to_owned(),
    }
}

/// What flags, environment and file say, before it is understood.
struct Given<'a> {
    flags: BTreeMap<&'static str, Vec<OsString>>,
    environment: &'a BTreeMap<String, OsString>,
    file: Option<FileValues>,
}

fn flags(matches: &ArgMatches, settings: &[Setting]) -> BTreeMap<&'static str, Vec<OsString>> {
    let with_flag = settings.iter().filter(|setting| setting.has_flag());
    with_flag
        .filter_map(|setting| {
            matches
                .get_many::<OsString>(setting.key)
                .map(|values| (setting.key, values.cloned().collect()))
        })
        .collect()
}

impl<'a> Given<'a> {
    fn gather(
        matches: &ArgMatches,
        environment: &'a BTreeMap<String, OsString>,
        settings: &[Setting],
    ) -> Result<Given<'a>, ConfigError> {
        let named = matches
            .get_one::<OsString>(command::CONFIG)
            .or_else(|| environment.get(CONFIG_VARIABLE));
        let file = named.map(|path| file::read(Path::new(path))).transpose()?;
        Ok(Given { flags: flags(matches, settings), environment, file })
    }

    /// A setting's values as they were written, and who wrote them.
    fn find(&self, setting: &Setting) -> (Vec<OsString>, Source) {
        let variable = setting.variable();
        if let Some(values) = self.flags.get(setting.key) {
            return (values.clone(), Source::Flag(setting.flag.to_owned()));
        }
        if let Some(value) = self.environment.get(&variable) {
            let values = match setting.kind {
                Kind::Folders => {
                    std::env::split_paths(value).map(PathBuf::into_os_string).collect()
                }
                Kind::Address
                | Kind::File
                | Kind::Folder
                | Kind::Count { .. }
                | Kind::Bytes { .. }
                | Kind::Time { .. }
                | Kind::Switch
                | Kind::Device
                | Kind::Choice(_)
                | Kind::Text
                | Kind::Url
                | Kind::Users => vec![value.clone()],
            };
            return (values, Source::Environment(variable));
        }
        if let Some(file) = &self.file
            && let Some(values) = file.values.get(setting.key)
        {
            return (values.clone(), Source::File(file.path.clone()));
        }
        (setting.default.map(OsString::from).into_iter().collect(), Source::Default)
    }

    fn settings(&self) -> Result<Settings, ConfigError> {
        let listen = self.parsed("listen", value::address)?;
        let trust_loopback = self.parsed("trust_loopback", value::switch)?;
        let users = self.users()?;
        check_login(&listen, trust_loopback, &users)?;
        let store = self.folder("store")?.expect("the store has a default");
        let data_roots = self.data_roots()?;
        let mut warnings = self.misspelt_variables();
        warnings.extend(data_roots.iter().filter(|root| store.starts_with(root)).map(|root| {
            format!(
                "the store {} lies inside the data root {}; statements may read files there, keep the two apart",
                store.display(),
                root.display()
            )
        }));
        Ok(Settings {
            dataset_dir: self.folder("dataset_dir")?.unwrap_or_else(|| store.join("datasets")),
            dataset_url: self.parsed("dataset_url", value::url)?,
            model_url: self.parsed("model_url", value::url)?,
            store,
            data_roots,
            max_connections: self.count("max_connections")? as usize,
            max_message_bytes: self.count("max_message_bytes")? as usize,
            login_timeout: self.time("login_timeout")?.expect("this time cannot be off"),
            statement_timeout: self.time("statement_timeout")?,
            tls: self.tls()?,
            users,
            trust_loopback,
            device: self.parsed("device", value::device)?,
            precision: self.parsed("precision", |text| value::choice(text, &["auto", "full"]))?,
            sled_cache_bytes: self.count("sled_cache_bytes")?,
            column_cache_bytes: self.count("column_cache_bytes")?,
            model_cache_bytes: self.count("model_cache_bytes")?,
            index_memory_bytes: self.count("index_memory_bytes")?,
            query_memory_bytes: self.count("query_memory_bytes")?,
            training_memory_bytes: self.count("training_memory_bytes")?,
            max_image_bytes: self.count("max_image_bytes")?,
            max_image_pixels: self.count("max_image_pixels")?,
            max_image_side: self.count("max_image_side")? as u32,
            max_training_bytes: self.count("max_training_bytes")?,
            max_model_file_bytes: self.count("max_model_file_bytes")?,
            pretrained_resnet18: self.file("pretrained_resnet18")?,
            finished_jobs: self.count("finished_jobs")? as usize,
            log: self.log()?,
            warnings,
            reported: SETTINGS.iter().map(|setting| self.report(setting)).collect(),
            listen,
        })
    }

    /// A setting of one value that must be there, understood by `parse`.
    fn parsed<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let (values, source) = self.find(setting(key));
        let value = values.first().map_or(OsStr::new(""), OsString::as_os_str);
        let wrong = |reason| ConfigError::Value {
            setting: key,
            value: value.to_string_lossy().into_owned(),
            source_of: source,
            reason,
        };
        match value.to_str() {
            Some(text) => parse(text).map_err(wrong),
            None => Err(wrong("it is not UTF-8".to_owned())),
        }
    }

    /// A setting that is a number, of whatever unit.
    fn count(&self, key: &'static str) -> Result<u64, ConfigError> {
        if let Kind::Count { min, max } = setting(key).kind {
            self.parsed(key, |text| value::count(text, min, max))
        } else if let Kind::Bytes { min, max } = setting(key).kind {
            self.parsed(key, |text| value::bytes(text, min, max))
        } else {
            unreachable!("{key} is no number")
        }
    }

    fn time(&self, key: &'static str) -> Result<Option<Duration>, ConfigError> {
        let Kind::Time { may_be_off } = setting(key).kind else { unreachable!("{key} is no time") };
        self.parsed(key, |text| value::time(text, may_be_off))
    }

    fn log(&self) -> Result<LogSettings, ConfigError> {
        let filter = self.parsed("log_filter", |text| {
            if text.trim().is_empty() {
                Err("a level is needed, such as info".to_owned())
            } else {
                Ok(text.trim().to_owned())
            }
        })?;
        let format =
            self.parsed("log_format", |text| match value::choice(text, &["text", "json"])? {
                "json" => Ok(LogFormat::Json),
                _ => Ok(LogFormat::Text),
            })?;
        Ok(LogSettings { filter, format })
    }

    /// Paths with an error maker for each, none if the setting is absent.
    fn paths(&self, key: &'static str) -> Vec<(PathBuf, impl FnOnce(String) -> ConfigError)> {
        let (values, source) = self.find(setting(key));
        let with_error = |value: OsString| {
            let shown = value.to_string_lossy().into_owned();
            let source_of = source.clone();
            (PathBuf::from(value), move |reason| ConfigError::Value {
                setting: key,
                value: shown,
                source_of,
                reason,
            })
        };
        values.into_iter().map(with_error).collect()
    }

    /// A folder that may yet have to be made, as an absolute path whose part that is there has no links.
    fn folder(&self, key: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        let Some((path, wrong)) = self.paths(key).into_iter().next() else { return Ok(None) };
        match resolved(&path) {
            Ok(path) if path.exists() && !path.is_dir() => {
                Err(wrong("it is not a folder".to_owned()))
            }
            Ok(path) => Ok(Some(path)),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    fn file(&self, key: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        let Some((path, wrong)) = self.paths(key).into_iter().next() else { return Ok(None) };
        match path.canonicalize() {
            Ok(path) if path.is_dir() => Err(wrong("it is a folder, a file is needed".to_owned())),
            Ok(path) => Ok(Some(path)),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    fn data_roots(&self) -> Result<Vec<PathBuf>, ConfigError> {
        let mut roots = Vec::new();
        for (path, wrong) in self.paths("data_root") {
            match path.canonicalize() {
                Ok(root) if !root.is_dir() => return Err(wrong("it is not a folder".to_owned())),
                Ok(root) if roots.contains(&root) => {}
                Ok(root) => roots.push(root),
                Err(error) => return Err(wrong(error.to_string())),
            }
        }
        Ok(roots)
    }

    fn tls(&self) -> Result<Option<TlsFiles>, ConfigError> {
        let (certificate, private_key) = ("tls_certificate", "tls_private_key");
        match (self.file(certificate)?, self.file(private_key)?) {
            (None, None) => Ok(None),
            (Some(certificate), Some(private_key)) => {
                Ok(Some(TlsFiles { certificate, private_key }))
            }
            (Some(_), None) => {
                Err(ConfigError::HalfTls { given: certificate, missing: private_key })
            }
            (None, Some(_)) => {
                Err(ConfigError::HalfTls { given: private_key, missing: certificate })
            }
        }
    }

    /// The users of the environment, or else of the file, and those of the users' file.
    fn users(&self) -> Result<Vec<User>, ConfigError> {
        let hidden = |setting: &'static str, source_of: Source| {
            move |reason| ConfigError::Value { setting, value: "***".to_owned(), source_of, reason }
        };
        let variable = setting("users").variable();
        let mut users = match (self.environment.get(&variable), &self.file) {
            (Some(text), _) => {
                let wrong = hidden("users", Source::Environment(variable));
                let text = text.to_str().ok_or("it is not UTF-8".to_owned());
                text.and_then(|text| users::parse_list(text, &[',', '\n'])).map_err(wrong)?
            }
            (None, Some(file)) => file.users.clone().unwrap_or_default(),
            (None, None) => Vec::new(),
        };
        if let Some(path) = self.file("users_file")? {
            let text = std::fs::read_to_string(&path)
                .map_err(|source| ConfigError::File { path: path.clone(), source })?;
            let wrong = hidden("users_file", Source::File(path));
            users.extend(users::parse_list(&text, &['\n']).map_err(wrong)?);
        }
        let twice = users
            .iter()
            .enumerate()
            .find(|(place, user)| users[..*place].iter().any(|other| other.name == user.name));
        if let Some((_, user)) = twice {
            return Err(ConfigError::Value {
                setting: "users",
                value: user.name.clone(),
                source_of: self.find(setting("users_file")).1,
                reason: "the name is given twice".to_owned(),
            });
        }
        Ok(users)
    }

    fn report(&self, setting: &Setting) -> Reported {
        let (values, source) = self.find(setting);
        if setting.kind == Kind::Users {
            let source = match (&source, &self.file) {
                (Source::Default, Some(file)) if file.users.is_some() => {
                    Source::File(file.path.clone())
                }
                _ => source,
            };
            let value = if source == Source::Default { "" } else { "***" };
            return Reported { key: setting.key, value: value.to_owned(), source };
        }
        let shown: Vec<_> = values.iter().map(|value| value.to_string_lossy()).collect();
        Reported { key: setting.key, value: shown.join(", "), source }
    }

    /// Variables that look like one of ours and are none. An error would be too much: container platforms set variables
    /// of the same prefix for a service of our name.
    fn misspelt_variables(&self) -> Vec<String> {
        let known: Vec<String> =
            SETTINGS.iter().map(Setting::variable).chain([CONFIG_VARIABLE.to_owned()]).collect();
        let unknown = self
            .environment
            .keys()
            .filter(|name| name.starts_with(ENVIRONMENT_PREFIX) && !known.contains(name));
        unknown
            .filter_map(|name| {
                let nearest = value::nearest(name, known.iter().map(String::as_str))?;
                Some(format!("environment variable {name} is no setting, did you mean {nearest}?"))
            })
            .collect()
    }
}

/// Absolute, and without links as far as it is there.
fn resolved(path: &Path) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let mut missing = Vec::new();
    let mut there = absolute.as_path();
    loop {
        match there.canonicalize() {
            Ok(found) => {
                return Ok(missing
                    .into_iter()
                    .rev()
                    .fold(found, |path, name: &OsStr| path.join(name)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                match (there.parent(), there.file_name()) {
                    (Some(parent), Some(name)) => {
                        missing.push(name);
                        there = parent;
                    }
                    _ => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// A server that nobody can log in to is a mistake that is better seen now than at the first client.
fn check_login(listen: &str, trust_loopback: bool, users: &[User]) -> Result<(), ConfigError> {
    if !users.is_empty() {
        Ok(())
    } else if !trust_loopback {
        Err(ConfigError::NobodyAtAll)
    } else if !is_loopback(listen) {
        Err(ConfigError::NobodyFromElsewhere { listen: listen.to_owned() })
    } else {
        Ok(())
    }
}

fn is_loopback(listen: &str) -> bool {
    match listen.parse::<std::net::SocketAddr>() {
        Ok(address) => address.ip().is_loopback(),
        Err(_) => {
            listen.rsplit_once(':').is_some_and(|(host, _)| host.eq_ignore_ascii_case("localhost"))
        }
    }
}
