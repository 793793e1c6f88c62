//! The way from arguments, variables and a file to settings.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::{
    ConfigError, DemoSettings, HealthcheckSettings, Invocation, LogFormat, SETTINGS, Settings,
    Source, UserSecret, load_from,
};

const EXAMPLE: &str = include_str!("../../docs/thanosql.example.toml");

fn load(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Invocation, ConfigError> {
    let arguments =
        std::iter::once("thanosql").chain(arguments.iter().copied()).map(OsString::from);
    let environment = environment.iter().map(|&(name, value)| (name.into(), value.into()));
    load_from(arguments, environment)
}

fn serve(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    match load(arguments, environment)? {
        Invocation::Serve(settings) => Ok(*settings),
        other @ (Invocation::Demo(_) | Invocation::Healthcheck(_)) => panic!("{other:?}"),
    }
}

fn message(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    load(arguments, environment).expect_err("this must be refused").to_string()
}

fn write(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn source(settings: &Settings, key: &str) -> Source {
    settings.reported().iter().find(|reported| reported.key == key).unwrap().source.clone()
}

#[test]
fn the_defaults_are_safe_and_small() {
    let settings = serve(&[], &[]).unwrap();
    assert_eq!(settings.listen, "127.0.0.1:5432");
    assert!(settings.trust_loopback && settings.users.is_empty() && settings.tls.is_none());
    assert!(settings.data_roots.is_empty());
    assert_eq!(settings.dataset_dir, settings.store.join("datasets"));
    assert!(settings.store.is_absolute());
    assert_eq!(settings.statement_timeout, None);
    assert_eq!(settings.login_timeout, Duration::from_secs(10));
    assert_eq!((settings.max_connections, settings.max_message_bytes), (100, 64 << 20));
    assert_eq!((settings.max_image_pixels, settings.max_image_side), (1 << 26, 16_384));
    assert_eq!((settings.training_memory_bytes, settings.max_training_bytes), (2 << 30, 256 << 30));
    assert_eq!(settings.max_model_file_bytes, 512 << 20);
    assert_eq!((settings.pretrained_resnet18.as_deref(), settings.finished_jobs), (None, 1000));
    assert_eq!((settings.device.as_str(), settings.precision), ("auto", "auto"));
    assert_eq!((settings.log.filter.as_str(), settings.log.format), ("info", LogFormat::Text));
    assert!(settings.warnings.is_empty());
    assert!(settings.reported().iter().all(|reported| reported.source == Source::Default));
}

#[test]
fn a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default() {
    let folder = TempDir::new().unwrap();
    let file =
        write(&folder, "t.toml", "max_connections = 3\nlog_format = \"json\"\ndevice = \"cpu\"\n");
    let environment = [("THANOSQL_MAX_CONNECTIONS", "2"), ("THANOSQL_DEVICE", "wgpu:1")];
    let settings =
        serve(&["serve", "--config", &file, "--max-connections", "1"], &environment).unwrap();
    assert_eq!(
        (settings.max_connections, source(&settings, "max_connections")),
        (1, Source::Flag("max-connections".into()))
    );
    assert_eq!(
        (settings.device.as_str(), source(&settings, "device")),
        ("wgpu:1", Source::Environment("THANOSQL_DEVICE".into()))
    );
    assert_eq!(
        (settings.log.format, source(&settings, "log_format")),
        (LogFormat::Json, Source::File(PathBuf::from(&file)))
    );
    assert_eq!(source(&settings, "listen"), Source::Default);
    let settings = serve(&[], &[("THANOSQL_CONFIG", file.as_str())]).unwrap();
    assert_eq!(settings.max_connections, 3);
    // An empty variable is one that is not set, as compose files make them.
    assert_eq!(serve(&[], &[("THANOSQL_MAX_CONNECTIONS", "")]).unwrap().max_connections, 100);
}

/// Every setting through every door: a value that is not the default comes out at the other end.
#[test]
fn every_setting_can_be_set_by_flag_variable_and_file() {
    let folder = TempDir::new().unwrap();
    let some_file = write(&folder, "some.txt", "");
    let some_folder = folder.path().join("폴더");
    fs::create_dir(&some_folder).unwrap();
    let some_folder = some_folder.to_str().unwrap();
    let values: BTreeMap<&str, &str> = BTreeMap::from([
        ("listen", "127.0.0.1:1"),
        ("max_connections", "7"),
        ("max_message_bytes", "1 MiB"),
        ("login_timeout", "1 s"),
        ("statement_timeout", "90 s"),
        ("tls_certificate", &some_file),
        ("tls_private_key", &some_file),
        ("trust_loopback", "false"),
        ("users", "ann:secret"),
        ("users_file", &some_file),
        ("store", some_folder),
        ("data_root", some_folder),
        ("dataset_dir", some_folder),
        ("dataset_url", "http://host/mnist"),
        ("model_url", "https://host/models.json"),
        ("sled_cache_bytes", "2 MiB"),
        ("column_cache_bytes", "3 MiB"),
        ("model_cache_bytes", "4 MiB"),
        ("index_memory_bytes", "8 MiB"),
        ("query_memory_bytes", "20 MiB"),
        ("training_memory_bytes", "9 MiB"),
        ("max_image_bytes", "5 MiB"),
        ("max_image_pixels", "1000"),
        ("max_image_side", "100"),
        ("max_training_bytes", "6 MiB"),
        ("max_model_file_bytes", "7 MiB"),
        ("pretrained_resnet18", &some_file),
        ("finished_jobs", "8"),
        ("device", "cpu"),
        ("precision", "full"),
        ("log_filter", "debug"),
        ("log_format", "json"),
    ]);
    assert_eq!(values.keys().copied().collect::<Vec<_>>(), {
        let mut keys: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
        keys.sort_unstable();
        keys
    });
    let mut flags = vec!["serve".to_owned()];
    let mut variables = Vec::new();
    let mut file = String::new();
    let mut tables = String::new();
    for setting in SETTINGS {
        let value = values[setting.key];
        assert_eq!(setting.flag, setting.key.replace('_', "-"));
        if setting.has_flag() {
            flags.extend([format!("--{}", setting.flag), value.to_owned()]);
            file.push_str(&format!("{} = {value:?}\n", setting.key));
        } else {
            tables.push_str("[[users]]\nname = \"ann\"\npassword = \"secret\"\n");
        }
        variables.push((setting.variable(), value.to_owned()));
    }
    let file = write(&folder, "all.toml", &(file + &tables));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    for settings in [
        serve(&flags, &[("THANOSQL_USERS", "ann:secret")]).unwrap(),
        serve(&[], &variables).unwrap(),
        serve(&["--config", &file], &[]).unwrap(),
    ] {
        assert_eq!(settings.listen, "127.0.0.1:1");
        assert_eq!((settings.max_connections, settings.max_message_bytes), (7, 1 << 20));
        assert_eq!(
            (settings.login_timeout, settings.statement_timeout),
            (Duration::from_secs(1), Some(Duration::from_secs(90)))
        );
        let tls = settings.tls.as_ref().unwrap();
        assert!(tls.certificate.ends_with("some.txt") && tls.private_key.ends_with("some.txt"));
        assert!(!settings.trust_loopback);
        assert_eq!(settings.users[0].secret, UserSecret::Password("secret".into()));
        assert!(
            settings.store.ends_with("폴더")
                && settings.dataset_dir.ends_with("폴더")
                && settings.data_roots[0].ends_with("폴더")
        );
        assert_eq!(
            (settings.dataset_url.as_deref(), settings.model_url.as_deref()),
            (Some("http://host/mnist"), Some("https://host/models.json"))
        );
        assert_eq!((settings.sled_cache_bytes, settings.column_cache_bytes), (2 << 20, 3 << 20));
        assert_eq!((settings.model_cache_bytes, settings.query_memory_bytes), (4 << 20, 20 << 20));
        assert_eq!(
            (settings.index_memory_bytes, settings.training_memory_bytes),
            (8 << 20, 9 << 20)
        );
        assert_eq!(
            (settings.max_image_bytes, settings.max_image_pixels, settings.max_image_side),
            (5 << 20, 1_000, 100)
        );
        assert_eq!(
            (settings.max_training_bytes, settings.max_model_file_bytes),
            (6 << 20, 7 << 20)
        );
        assert!(settings.pretrained_resnet18.as_ref().unwrap().ends_with("some.txt"));
        assert_eq!(settings.finished_jobs, 8);
        assert_eq!(settings.device, "cpu");
        assert_eq!((settings.log.filter.as_str(), settings.log.format), ("debug", LogFormat::Json));
        assert!(settings.reported().iter().all(|reported| reported.source != Source::Default));
    }
}

#[test]
fn addresses_are_http_or_off() {
    let model_url =
        |text: &str| serve(&["--model-url", text], &[]).map(|settings| settings.model_url);
    assert_eq!(model_url("OFF").unwrap(), None);
    assert_eq!(serve(&[], &[]).unwrap().model_url, None);
    assert!(serve(&[], &[]).unwrap().dataset_url.unwrap().starts_with("https://"));
    assert_eq!(model_url(" HTTP://host:80/a ").unwrap().as_deref(), Some("HTTP://host:80/a"));
    for wrong in [
        "",
        "host/models.json",
        "ftp://host/x",
        "file:///etc/passwd",
        "http://",
        "https:///x",
        "http://a b",
    ] {
        assert!(model_url(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn the_example_file_has_every_setting_at_its_default() {
    let uncommented: String = EXAMPLE
        .lines()
        .filter_map(|line| {
            line.strip_prefix('#').filter(|rest| {
                rest.starts_with(|first: char| first.is_ascii_lowercase() || first == '[')
            })
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let table: toml::Table = toml::from_str(&uncommented).unwrap();
    let read = crate::file::parse(Path::new("example.toml"), &uncommented).unwrap();
    assert_eq!(read.users.map(|users| users.len()), Some(1));
    for setting in SETTINGS {
        assert!(table.contains_key(setting.key), "{} is missing", setting.key);
        if let Some(default) = setting.default {
            let written = match &table[setting.key] {
                toml::Value::String(text) => text.clone(),
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(switch) => switch.to_string(),
                other @ (toml::Value::Float(_)
                | toml::Value::Datetime(_)
                | toml::Value::Array(_)
                | toml::Value::Table(_)) => panic!("{other:?}"),
            };
            assert_eq!(written, default, "{}", setting.key);
        }
    }
    let folder = TempDir::new().unwrap();
    let file = write(&folder, "thanosql.toml", EXAMPLE);
    assert_eq!(serve(&["--config", &file], &[]).unwrap().listen, "127.0.0.1:5432");
}

#[test]
fn paths_in_a_file_are_relative_to_it_and_roots_are_resolved() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::create_dir(root.join("images")).unwrap();
    std::os::unix::fs::symlink(root.join("images"), root.join("link")).unwrap();
    let file = write(
        &folder,
        "t.toml",
        "store = \"kept/here\"\ndata_root = [\"images\", \"link\", \".\"]\n",
    );
    let settings = serve(&["--config", &file], &[]).unwrap();
    assert_eq!(settings.store, root.join("kept/here"));
    assert_eq!(settings.data_roots, [root.join("images"), root.clone()]);
    assert_eq!(settings.warnings.len(), 1, "the store is inside a root: {:?}", settings.warnings);
    let images = root.join("images");
    let images = images.to_str().unwrap();
    let settings =
        serve(&["--data-root", images, "--data-root", root.to_str().unwrap()], &[]).unwrap();
    assert_eq!(settings.data_roots.len(), 2);
    let both = format!("{images}:{}", root.display());
    assert_eq!(
        serve(&[], &[("THANOSQL_DATA_ROOT", &both)]).unwrap().data_roots,
        settings.data_roots
    );
}

#[test]
fn wrong_values_name_setting_value_and_source() {
    let folder = TempDir::new().unwrap();
    let file = |text: &str| write(&folder, "t.toml", text);
    for (arguments, environment, parts) in [
        (
            vec!["--max-connections", "many"],
            vec![],
            vec!["max_connections", "many", "from --max-connections", "1 to 10000"],
        ),
        (
            vec![],
            vec![("THANOSQL_LOGIN_TIMEOUT", "10")],
            vec!["login_timeout", "10", "from THANOSQL_LOGIN_TIMEOUT", "unit"],
        ),
        (vec!["--listen", "5432"], vec![], vec!["listen", "5432", "port"]),
        (vec!["--device", "gpu"], vec![], vec!["device", "gpu", "wgpu:N"]),
        (vec!["--precision", "half"], vec![], vec!["precision", "auto or full"]),
        (vec!["--log-format", "xml"], vec![], vec!["log_format", "text or json"]),
        (
            vec!["--data-root", "/no/such/folder"],
            vec![],
            vec!["data_root", "/no/such/folder", "No such file"],
        ),
        (
            vec!["--tls-certificate", "/no/such/file"],
            vec![],
            vec!["tls_certificate", "/no/such/file"],
        ),
        (vec!["--store", "/dev/null"], vec![], vec!["store", "/dev/null", "not a folder"]),
        (
            vec!["--config", "/no/such/file.toml"],
            vec![],
            vec!["/no/such/file.toml", "No such file"],
        ),
        (vec!["healthcheck", "--timeout", "soon"], vec![], vec!["timeout", "soon"]),
        (vec![], vec![("THANOSQL_CONFIG", "/no/such/file.toml")], vec!["/no/such/file.toml"]),
    ] {
        let message = message(&arguments, &environment);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    for (text, parts) in [
        (
            "max_conections = 3",
            vec!["max_conections", "did you mean \"max_connections\"", "trust_loopback"],
        ),
        ("max_connections = 3.5", vec!["max_connections", "float", "t.toml"]),
        ("max_connections = 0", vec!["max_connections", "0", "t.toml", "1 to 10000"]),
        ("listen = [\"a\"]", vec!["listen", "array"]),
        ("data_root = [1]", vec!["data_root", "integer"]),
        ("data_root = \"nowhere\"", vec!["data_root", "nowhere", "No such file"]),
        ("[log]\nfilter = \"info\"", vec!["unknown key \"log\""]),
        ("\n\nlisten =", vec!["line 3"]),
        ("listen = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"", vec!["line 2"]),
        ("[[users]]\nname = \"ann\"\nsecret = \"hunter2\"", vec!["unknown key \"users.secret\""]),
        ("[[users]]\nname = \"ann\"", vec!["users", "password"]),
        ("users = \"hunter2\"", vec!["users", "[[users]]"]),
    ] {
        let message = message(&["--config", &file(text)], &[]);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn tls_needs_both_of_its_files() {
    let folder = TempDir::new().unwrap();
    let file = write(&folder, "server.crt", "");
    assert!(matches!(
        serve(&["--tls-certificate", &file], &[]),
        Err(ConfigError::HalfTls { missing: "tls_private_key", .. })
    ));
    assert!(matches!(
        serve(&["--tls-private-key", &file], &[]),
        Err(ConfigError::HalfTls { missing: "tls_certificate", .. })
    ));
}

#[test]
fn a_server_that_nobody_can_log_in_to_does_not_start() {
    for listen in ["0.0.0.0:5432", "[::]:5432", "192.0.2.1:5432", "db.example:5432"] {
        assert!(
            matches!(
                serve(&["--listen", listen], &[]),
                Err(ConfigError::NobodyFromElsewhere { .. })
            ),
            "{listen}"
        );
        assert!(
            serve(&["--listen", listen], &[("THANOSQL_USERS", "ann:secret")]).is_ok(),
            "{listen}"
        );
    }
    for listen in ["[::1]:5432", "localhost:5432", "127.1.2.3:0"] {
        assert!(serve(&["--listen", listen], &[]).is_ok(), "{listen}");
    }
    assert!(matches!(serve(&["--trust-loopback", "false"], &[]), Err(ConfigError::NobodyAtAll)));
}

#[test]
fn users_come_together_and_secrets_stay_hidden() {
    let folder = TempDir::new().unwrap();
    let in_file = write(&folder, "t.toml", "[[users]]\nname = \"ann\"\npassword = \"hunter2\"\n");
    let secret = write(&folder, "secret", "# from the vault\nbob:hunter2\n");
    let names = |settings: &Settings| {
        settings.users.iter().map(|user| user.name.clone()).collect::<Vec<_>>()
    };
    let settings = serve(&["--config", &in_file, "--users-file", &secret], &[]).unwrap();
    assert_eq!(names(&settings), ["ann", "bob"]);
    assert!(!format!("{settings:?}").contains("hunter2"));
    let settings = serve(&["--config", &in_file], &[("THANOSQL_USERS", "cid:hunter2")]).unwrap();
    assert_eq!(names(&settings), ["cid"]);
    assert_eq!(source(&settings, "users"), Source::Environment("THANOSQL_USERS".into()));
    assert!(!format!("{settings:?}").contains("hunter2"));
    let twice = message(&["--users-file", &secret], &[("THANOSQL_USERS", "bob:hunter2")]);
    assert!(
        twice.contains("bob") && twice.contains("twice") && !twice.contains("hunter2"),
        "{twice}"
    );
    let broken = message(&[], &[("THANOSQL_USERS", "hunter2")]);
    assert!(broken.contains("THANOSQL_USERS") && !broken.contains("hunter2"), "{broken}");
    assert!(load(&["--users", "ann:hunter2"], &[]).is_err(), "secrets have no flag");
}

#[test]
fn a_misspelt_variable_is_worth_a_warning() {
    let environment = [
        ("THANOSQL_STROE", "/tmp"),
        ("THANOSQL_SERVICE_HOST", "10.0.0.1"),
        ("THANOSQL_CONFIG", ""),
    ];
    let warnings = serve(&[], &environment).unwrap().warnings;
    assert_eq!(
        warnings,
        ["environment variable THANOSQL_STROE is no setting, did you mean THANOSQL_STORE?"]
    );
}

#[test]
fn the_demo_has_its_own_settings() {
    let demo = |arguments: &[&str], environment: &[(&str, &str)]| match load(arguments, environment)
    {
        Ok(Invocation::Demo(demo)) => *demo,
        other => panic!("{other:?}"),
    };
    let DemoSettings { images, epochs, seed, keep, device, log } = demo(&["demo"], &[]);
    assert_eq!(
        (images, epochs, seed, keep, device.as_str(), log.filter.as_str()),
        (3_000, 5, 7, false, "auto", "warn")
    );
    let given = demo(
        &["demo", "--images", "500", "--epochs", "2", "--seed", "9", "--keep", "--device", "cpu"],
        &[("THANOSQL_LOG_FILTER", "info"), ("THANOSQL_LISTEN", "0.0.0.0:1")],
    );
    assert_eq!((given.images, given.epochs, given.seed, given.keep), (500, 2, 9, true));
    assert_eq!((given.device.as_str(), given.log.filter.as_str()), ("cpu", "info"));
    let folder = TempDir::new().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let server = given.server(&root.join("store"), &root).unwrap();
    assert_eq!((server.listen.as_str(), server.device.as_str()), ("127.0.0.1:0", "cpu"));
    assert_eq!((server.data_roots, server.dataset_dir), (vec![root.clone()], root.clone()));
    assert_eq!(server.log.filter, "info");
    assert!(load(&["demo", "--images", "1"], &[]).is_err());
    assert!(load(&["demo", "--store", "x"], &[]).is_err());
}

#[test]
fn the_health_check_finds_the_server() {
    let check =
        |arguments: &[&str], environment: &[(&str, &str)]| match load(arguments, environment) {
            Ok(Invocation::Healthcheck(check)) => check,
            other => panic!("{other:?}"),
        };
    let expected = |address: &str, seconds| HealthcheckSettings {
        address: address.into(),
        timeout: Duration::from_secs(seconds),
    };
    assert_eq!(check(&["healthcheck"], &[]), expected("127.0.0.1:5432", 3));
    assert_eq!(
        check(&["healthcheck"], &[("THANOSQL_LISTEN", "0.0.0.0:1")]),
        expected("127.0.0.1:1", 3)
    );
    assert_eq!(
        check(&["healthcheck", "--listen", "[::]:2", "--timeout", "1 s"], &[]),
        expected("[::1]:2", 1)
    );
}

#[test]
fn the_command_line_is_checked_and_helps() {
    for arguments in [&["--nonsense"][..], &["nonsense"], &["serve", "demo"], &["--listen"]] {
        assert!(matches!(load(arguments, &[]), Err(ConfigError::Usage(_))), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["serve", "--help"]] {
        let help = message(arguments, &[]);
        for setting in SETTINGS.iter().filter(|setting| setting.has_flag()) {
            let parts = [
                format!("--{} <", setting.flag),
                setting.variable(),
                format!("{}:", setting.group.heading()),
            ];
            assert!(parts.iter().all(|part| help.contains(part)), "{} in {help}", setting.key);
        }
    }
    assert!(message(&["--help"], &[]).contains("demo"));
    assert!(message(&["demo", "--help"], &[]).contains("--images"));
    assert!(message(&["--version"], &[]).contains(env!("CARGO_PKG_VERSION")));
}
