//! The one table of settings.

/// Every environment variable begins with this.
pub(crate) const ENVIRONMENT_PREFIX: &str = "THANOSQL_";

/// Something that can be set.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The key in the file. The variable is this in capitals behind `THANOSQL_`.
    pub key: &'static str,
    /// The flag without its hyphens in front: the key with hyphens.
    pub flag: &'static str,
    /// The part of the help and of the example file in which it stands.
    pub group: Group,
    /// What its values are.
    pub kind: Kind,
    /// The default as it would be written. None where being absent means something of its own.
    pub default: Option<&'static str>,
    /// What the help calls the value.
    pub value_name: &'static str,
    /// One sentence, without a full stop.
    pub help: &'static str,
}

/// Parts of the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Who may connect, and how.
    Connections,
    /// Where things are kept.
    Folders,
    /// What may be used up.
    Memory,
    /// What an image may cost.
    Images,
    /// Trainings and models' files.
    Models,
    /// What computes.
    Device,
    /// What is written about it.
    Log,
}

impl Group {
    /// The heading in the help.
    pub fn heading(self) -> &'static str {
        match self {
            Group::Connections => "Connections",
            Group::Folders => "Folders",
            Group::Memory => "Memory",
            Group::Images => "Images",
            Group::Models => "Models",
            Group::Device => "Device",
            Group::Log => "Log",
        }
    }
}

/// What a setting's values are, with their bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `host:port`.
    Address,
    /// A file that must be there.
    File,
    /// A folder; it may yet have to be made.
    Folder,
    /// Folders that must be there: repeated as a flag, parted like PATH as a variable, an array in the file.
    Folders,
    /// A whole number.
    Count {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A number of bytes, plain or with KiB, MiB, GiB, kB, MB, GB.
    Bytes {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A time with its unit: ms, s, min, h.
    Time {
        /// Whether "off" is a value.
        may_be_off: bool,
    },
    /// `true` or `false`.
    Switch,
    /// `auto`, `cpu`, `wgpu` or `wgpu:N`.
    Device,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any text that is not empty.
    Text,
    /// An http or https address, or off.
    Url,
    /// Names and secrets. There is no flag: the arguments of a process are everybody's to read.
    Users,
}

impl Setting {
    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.key.to_ascii_uppercase())
    }

    /// False for what must not stand on a command line.
    pub fn has_flag(&self) -> bool {
        self.kind != Kind::Users
    }
}

/// The setting of this key.
pub(crate) fn setting(key: &str) -> &'static Setting {
    SETTINGS
        .iter()
        .find(|setting| setting.key == key)
        .expect("code names only settings of the table")
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Everything that can be set, in the order of the help.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "listen",
        flag: "listen",
        group: Group::Connections,
        kind: Kind::Address,
        default: Some("127.0.0.1:5432"),
        value_name: "HOST:PORT",
        help: "Address to listen on; port 0 takes a free one",
    },
    Setting {
        key: "max_connections",
        flag: "max-connections",
        group: Group::Connections,
        kind: Kind::Count { min: 1, max: 10_000 },
        default: Some("100"),
        value_name: "COUNT",
        help: "Connections at a time; one more is refused (SQLSTATE 53300)",
    },
    Setting {
        key: "max_message_bytes",
        flag: "max-message-bytes",
        group: Group::Connections,
        kind: Kind::Bytes { min: 64 * 1024, max: GIB },
        default: Some("64 MiB"),
        value_name: "BYTES",
        help: "Longest message that a client may send: a statement with its parameters",
    },
    Setting {
        key: "login_timeout",
        flag: "login-timeout",
        group: Group::Connections,
        kind: Kind::Time { may_be_off: false },
        default: Some("10 s"),
        value_name: "TIME",
        help: "How long a client may take to log in",
    },
    Setting {
        key: "statement_timeout",
        flag: "statement-timeout",
        group: Group::Connections,
        kind: Kind::Time { may_be_off: true },
        default: Some("off"),
        value_name: "TIME",
        help: "How long a statement may run, training included; a session can SET its own",
    },
    Setting {
        key: "tls_certificate",
        flag: "tls-certificate",
        group: Group::Connections,
        kind: Kind::File,
        default: None,
        value_name: "FILE",
        help: "Certificate chain in PEM; turns TLS on, together with the private key",
    },
    Setting {
        key: "tls_private_key",
        flag: "tls-private-key",
        group: Group::Connections,
        kind: Kind::File,
        default: None,
        value_name: "FILE",
        help: "Private key of the certificate in PEM",
    },
    Setting {
        key: "trust_loopback",
        flag: "trust-loopback",
        group: Group::Connections,
        kind: Kind::Switch,
        default: Some("true"),
        value_name: "BOOL",
        help: "Let clients of this machine in without a password",
    },
    Setting {
        key: "users",
        flag: "users",
        group: Group::Connections,
        kind: Kind::Users,
        default: None,
        value_name: "USERS",
        help: "Who may log in from elsewhere, as name:password or name:SCRAM-verifier, parted by commas or lines; a table in the file, no flag",
    },
    Setting {
        key: "users_file",
        flag: "users-file",
        group: Group::Connections,
        kind: Kind::File,
        default: None,
        value_name: "FILE",
        help: "More users, one name:password or name:SCRAM-verifier a line, as a container's secret holds them",
    },
    Setting {
        key: "store",
        flag: "store",
        group: Group::Folders,
        kind: Kind::Folder,
        default: Some("thanosql-store"),
        value_name: "DIR",
        help: "Where tables, models and jobs are kept; made if it is not there",
    },
    Setting {
        key: "data_root",
        flag: "data-root",
        group: Group::Folders,
        kind: Kind::Folders,
        default: None,
        value_name: "DIR",
        help: "Folder that statements may read files from and export to; may be repeated; without one they reach drawn and fetched datasets only",
    },
    Setting {
        key: "dataset_dir",
        flag: "dataset-dir",
        group: Group::Folders,
        kind: Kind::Folder,
        default: None,
        value_name: "DIR",
        help: "Where GET THANOSQL DATASET puts files; always a data root; by default the folder datasets in the store",
    },
    Setting {
        key: "dataset_url",
        flag: "dataset-url",
        group: Group::Folders,
        kind: Kind::Url,
        default: Some("https://ossci-datasets.s3.amazonaws.com/mnist/"),
        value_name: "URL",
        help: "Address of the folder with MNIST's four .gz files, whose content is checked, or off; asked only by GET THANOSQL DATASET mnist_data",
    },
    Setting {
        key: "model_url",
        flag: "model-url",
        group: Group::Folders,
        kind: Kind::Url,
        default: Some("off"),
        value_name: "URL",
        help: "Address of an index of published models (JSON), or off; asked only by LIST and GET THANOSQL MODEL",
    },
    Setting {
        key: "sled_cache_bytes",
        flag: "sled-cache-bytes",
        group: Group::Memory,
        kind: Kind::Bytes { min: MIB, max: TIB },
        default: Some("32 MiB"),
        value_name: "BYTES",
        help: "Cache of the key-value store under the tables",
    },
    Setting {
        key: "column_cache_bytes",
        flag: "column-cache-bytes",
        group: Group::Memory,
        kind: Kind::Bytes { min: 0, max: TIB },
        default: Some("256 MiB"),
        value_name: "BYTES",
        help: "Decoded columns kept for the next scan or search",
    },
    Setting {
        key: "model_cache_bytes",
        flag: "model-cache-bytes",
        group: Group::Memory,
        kind: Kind::Bytes { min: 0, max: TIB },
        default: Some("256 MiB"),
        value_name: "BYTES",
        help: "Models kept ready to embed",
    },
    Setting {
        key: "index_memory_bytes",
        flag: "index-memory-bytes",
        group: Group::Memory,
        kind: Kind::Bytes { min: 0, max: TIB },
        default: Some("1 GiB"),
        value_name: "BYTES",
        help: "Indexes over vectors (hnsw) kept ready to search; a larger one cannot be made",
    },
    Setting {
        key: "query_memory_bytes",
        flag: "query-memory-bytes",
        group: Group::Memory,
        kind: Kind::Bytes { min: 16 * MIB, max: TIB },
        default: Some("512 MiB"),
        value_name: "BYTES",
        help: "Memory that all running queries share for sorting, joining and grouping",
    },
    Setting {
        key: "training_memory_bytes",
        flag: "training-memory-bytes",
        group: Group::Memory,
        kind: Kind::Bytes { min: MIB, max: TIB },
        default: Some("2 GiB"),
        value_name: "BYTES",
        help: "Memory for a training's images: those that came as values, and decoded ones, which beyond it lie in a file of the store's folder",
    },
    Setting {
        key: "max_image_bytes",
        flag: "max-image-bytes",
        group: Group::Images,
        kind: Kind::Bytes { min: 1024, max: GIB },
        default: Some("64 MiB"),
        value_name: "BYTES",
        help: "Largest image file or value",
    },
    Setting {
        key: "max_image_pixels",
        flag: "max-image-pixels",
        group: Group::Images,
        kind: Kind::Count { min: 1, max: 1 << 30 },
        default: Some("67108864"),
        value_name: "COUNT",
        help: "Most pixels of an image, width times height; all images being decoded share as many",
    },
    Setting {
        key: "max_image_side",
        flag: "max-image-side",
        group: Group::Images,
        kind: Kind::Count { min: 1, max: 65_535 },
        default: Some("16384"),
        value_name: "PIXELS",
        help: "Largest width or height of an image",
    },
    Setting {
        key: "max_training_bytes",
        flag: "max-training-bytes",
        group: Group::Models,
        kind: Kind::Bytes { min: MIB, max: TIB },
        default: Some("256 GiB"),
        value_name: "BYTES",
        help: "Largest training set: its images decoded, in memory or in a file, and those that came as values",
    },
    Setting {
        key: "max_model_file_bytes",
        flag: "max-model-file-bytes",
        group: Group::Models,
        kind: Kind::Bytes { min: MIB, max: TIB },
        default: Some("512 MiB"),
        value_name: "BYTES",
        help: "Largest file that UPLOAD MODEL, GET THANOSQL MODEL and pretrained=True read",
    },
    Setting {
        key: "pretrained_resnet18",
        flag: "pretrained-resnet18",
        group: Group::Models,
        kind: Kind::File,
        default: None,
        value_name: "FILE",
        help: "Weights of ResNet-18 from ImageNet for pretrained=True, in torchvision's names: .safetensors or .pth",
    },
    Setting {
        key: "finished_jobs",
        flag: "finished-jobs",
        group: Group::Models,
        kind: Kind::Count { min: 1, max: 1_000_000 },
        default: Some("1000"),
        value_name: "COUNT",
        help: "Jobs that have ended and are still listed; older ones are forgotten, their models stay",
    },
    Setting {
        key: "device",
        flag: "device",
        group: Group::Device,
        kind: Kind::Device,
        default: Some("auto"),
        value_name: "DEVICE",
        help: "What trains and embeds: auto (a GPU if there is one), cpu, wgpu, wgpu:N (the GPU of that number)",
    },
    Setting {
        key: "precision",
        flag: "precision",
        group: Group::Device,
        kind: Kind::Choice(&["auto", "full"]),
        default: Some("auto"),
        value_name: "PRECISION",
        help: "What a GPU keeps while it trains: auto (16-bit numbers if it has them) or full (32-bit numbers)",
    },
    Setting {
        key: "log_filter",
        flag: "log-filter",
        group: Group::Log,
        kind: Kind::Text,
        default: Some("info"),
        value_name: "FILTER",
        help: "Least level to log, also by module: warn,thanosql_server::learning=debug",
    },
    Setting {
        key: "log_format",
        flag: "log-format",
        group: Group::Log,
        kind: Kind::Choice(&["text", "json"]),
        default: Some("text"),
        value_name: "FORMAT",
        help: "How a line of the log is written: text or json",
    },
];
