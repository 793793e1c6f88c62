//! The command line, made from the table of settings.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command, value_parser};

use crate::table::{Kind, SETTINGS, Setting, setting};

pub(crate) const SERVE: &str = "serve";
pub(crate) const DEMO: &str = "demo";
pub(crate) const HEALTHCHECK: &str = "healthcheck";

/// The flag that names the configuration file.
pub(crate) const CONFIG: &str = "config";
/// How many digits the demo draws.
pub(crate) const IMAGES: &str = "images";
/// The seed of the demo's digits and training.
pub(crate) const SEED: &str = "seed";
/// Passes over the data in the demo's training.
pub(crate) const EPOCHS: &str = "epochs";
/// Whether the demo's folder stays.
pub(crate) const KEEP: &str = "keep";
/// How long the health check waits.
pub(crate) const TIMEOUT: &str = "timeout";

/// The settings that mean something to the demo; it chooses address and folders itself.
pub(crate) const DEMO_SETTINGS: [&str; 3] = ["device", "log_filter", "log_format"];

/// The demo logs less, so that it can be read.
pub(crate) const DEMO_LOG_FILTER: &str = "warn";

/// The whole command line.
pub(crate) fn command() -> Command {
    let serve = Command::new(SERVE).about("Run the server (the default command)");
    let demo = Command::new(DEMO)
        .about("Draw handwriting-like digits, run the tutorial on them with a server of its own, and show the answers")
        .arg(number(IMAGES, "COUNT", "3000", "Digits to train with", 20, 60_000))
        .arg(number(EPOCHS, "COUNT", "5", "Passes over them", 1, 1_000))
        .arg(number(SEED, "NUMBER", "7", "Seed of the digits and of the training", 0, u32::MAX.into()))
        .arg(Arg::new(KEEP).long(KEEP).action(ArgAction::SetTrue).help("Keep the folder with images and store, and say where it is"))
        .args(DEMO_SETTINGS.map(|key| argument(setting(key))))
        .mut_arg("log_filter", |argument| {
            argument.help(described(&Setting { default: Some(DEMO_LOG_FILTER), ..*setting("log_filter") }))
        });
    let healthcheck = Command::new(HEALTHCHECK)
        .about("Connect to a running server; ends with 0 if it answers, with 1 if not")
        .arg(config_argument())
        .arg(argument(setting("listen")).help(described(&Setting {
            help: "Address that the server listens on",
            ..*setting("listen")
        })))
        .arg(text_argument(TIMEOUT, "TIME", "How long to wait\n[default: 3 s]"));
    with_settings(Command::new("thanosql"))
        .bin_name("thanosql")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A SQL database that learns from images, over PostgreSQL's protocol")
        .after_help(
            "A flag wins over its environment variable, that over the configuration file, that over the default.\n\
             Bytes may carry KiB, MiB, GiB, kB, MB or GB; a time carries ms, s, min or h.\n\
             Users are named in THANOSQL_USERS=name:password,..., in the configuration file or in a users file, never by a flag.",
        )
        .subcommand_value_name("COMMAND")
        .args_conflicts_with_subcommands(true)
        .disable_help_subcommand(true)
        .subcommands([with_settings(serve), demo, healthcheck])
}

fn with_settings(command: Command) -> Command {
    let settings = SETTINGS.iter().filter(|setting| setting.has_flag());
    command.arg(config_argument()).args(settings.map(argument))
}

fn config_argument() -> Arg {
    text_argument(CONFIG, "FILE", "Configuration file in TOML\n[env: THANOSQL_CONFIG]")
}

fn argument(setting: &'static Setting) -> Arg {
    let action = if setting.kind == Kind::Folders { ArgAction::Append } else { ArgAction::Set };
    text_argument(setting.key, setting.value_name, described(setting))
        .long(setting.flag)
        .help_heading(setting.group.heading())
        .action(action)
}

/// The values are checked later, together with those of other sources, so that all errors read alike.
fn text_argument(
    name: &'static str,
    value_name: &'static str,
    help: impl Into<clap::builder::StyledStr>,
) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name(value_name)
        .value_parser(value_parser!(OsString))
        .help(help.into())
}

fn number(
    name: &'static str,
    value_name: &'static str,
    default: &'static str,
    help: &'static str,
    min: u64,
    max: u64,
) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name(value_name)
        .default_value(default)
        .value_parser(value_parser!(u64).range(min..=max))
        .help(help)
}

fn described(setting: &Setting) -> String {
    let default =
        setting.default.map_or_else(String::new, |default| format!("[default: {default}] "));
    format!("{}\n{default}[env: {}]", setting.help, setting.variable())
}
