//! The device that computes: the CPU, or a GPU through wgpu.
//!
//! Adapters are asked for before anything is opened, because the library underneath panics where there is none.
//! [`DeviceChoice::Auto`] never takes a software Vulkan driver: the CPU backend is an order of magnitude faster than a
//! GPU that is emulated on the same cores. An explicit `wgpu` may take one, which is how the GPU path is tested on machines
//! without a GPU.
//!
//! A GPU's kernels are compiled and tuned when a shape first appears, which takes seconds; [`keep_tuning_in`] names a folder that remembers how they were tuned.
//!
//! Several devices at once are left out.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Mutex;

use burn::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use burn::cubecl::environment;
use burn::tensor::wgpu::wgpu;
use burn::tensor::{DType, Device, DeviceKind};

use crate::error::MlError;

/// Which device to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU if there is a real one, the CPU otherwise.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU through wgpu: the adapter with this number (real ones first), or the first. May be a software driver.
    Wgpu(Option<usize>),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Wgpu(None) => f.write_str("wgpu"),
            Self::Wgpu(Some(index)) => write!(f, "wgpu:{index}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = MlError;

    fn from_str(text: &str) -> Result<Self, MlError> {
        let name = text.trim().to_ascii_lowercase();
        match name.as_str() {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "wgpu" => Ok(Self::Wgpu(None)),
            _ => name
                .strip_prefix("wgpu:")
                .and_then(|index| index.parse().ok())
                .map(|index| Self::Wgpu(Some(index)))
                .ok_or_else(|| MlError::UnknownName {
                    kind: "device",
                    name: text.to_owned(),
                    known: "auto, cpu, wgpu, wgpu:N".to_owned(),
                }),
        }
    }
}

/// How a training keeps what lies between the layers of its encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// As 32-bit numbers.
    Full,
    /// As 16-bit numbers. All arithmetic, the weights and what is after the encoder have 32 bits.
    Half,
}

/// Which precision to train in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrecisionChoice {
    /// Half on a GPU whose shaders have 16-bit numbers, full otherwise.
    #[default]
    Auto,
    /// Full everywhere.
    Full,
}

impl fmt::Display for PrecisionChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Full => "full",
        })
    }
}

impl FromStr for PrecisionChoice {
    type Err = MlError;

    fn from_str(text: &str) -> Result<Self, MlError> {
        match text.trim().to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "full" => Ok(Self::Full),
            _ => Err(MlError::UnknownName {
                kind: "precision",
                name: text.to_owned(),
                known: "auto, full".to_owned(),
            }),
        }
    }
}

/// What this process has of a GPU's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// In use at the moment.
    pub bytes_in_use: u64,
    /// The same with what is kept for later use: about the most that was in use at a time.
    pub bytes_reserved: u64,
}

/// An opened device. Cloning it does not open it again.
#[derive(Clone, Debug)]
pub struct ComputeDevice {
    device: Device,
    name: String,
    cpu: bool,
    precision: Precision,
}

impl ComputeDevice {
    /// Opens a device.
    ///
    /// # Errors
    ///
    /// [`MlError::NoDevice`] if `choice` names a GPU and there is none with that number, or its driver refuses. `Auto` falls back
    /// to the CPU and never fails.
    pub fn open(choice: DeviceChoice) -> Result<Self, MlError> {
        match choice {
            DeviceChoice::Cpu => Ok(Self::cpu()),
            DeviceChoice::Auto => {
                for adapter in adapters().iter().filter(|adapter| !adapter.software) {
                    match adapter.open() {
                        Ok(device) => return Ok(device),
                        Err(reason) => {
                            tracing::warn!(adapter = %adapter.name, %reason, "the GPU cannot be used")
                        }
                    }
                }
                Ok(Self::cpu())
            }
            DeviceChoice::Wgpu(index) => {
                let adapters = adapters();
                let refuse = |reason| MlError::NoDevice { choice, reason };
                let adapter = adapters.get(index.unwrap_or(0)).ok_or_else(|| {
                    refuse(match adapters.len() {
                        0 => "no graphics adapter was found".to_owned(),
                        count => format!("{count} adapter(s) were found: {}", names(&adapters)),
                    })
                })?;
                adapter.open().map_err(refuse)
            }
        }
    }

    /// The CPU of this machine. Always there.
    pub fn cpu() -> Self {
        Self {
            device: Device::flex(),
            name: "cpu".to_owned(),
            cpu: true,
            precision: Precision::Full,
        }
    }

    /// What the device calls itself: "cpu", or the adapter's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is the CPU itself and not a graphics adapter.
    pub fn is_cpu(&self) -> bool {
        self.cpu
    }

    /// What trainings use: half precision on a GPU that has it.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The same device, for trainings in the precision that was chosen.
    #[must_use]
    pub fn with_precision(self, choice: PrecisionChoice) -> Self {
        match choice {
            PrecisionChoice::Auto => self,
            PrecisionChoice::Full => Self { precision: Precision::Full, ..self },
        }
    }

    /// Memory of a GPU; `None` for the CPU, whose memory is the process's.
    pub fn memory(&self) -> Option<DeviceMemory> {
        self.device.memory_pool_usage().map(|usage| DeviceMemory {
            bytes_in_use: usage.bytes_in_use,
            bytes_reserved: usage.bytes_reserved,
        })
    }

    /// The device for inference and data.
    pub(crate) fn inner(&self) -> &Device {
        &self.device
    }

    /// The device for tensors that take part in training.
    pub(crate) fn autodiff(&self) -> Device {
        self.device.clone().autodiff()
    }
}

/// Makes GPUs keep what they have found out about kernels, which of them is the fastest for a shape, in a file in this folder; it is made when
/// there is something to keep. For the whole process, and to be called before a GPU is opened. A folder that cannot be written costs the time of finding out
/// again, nothing else.
pub fn keep_tuning_in(folder: &Path) {
    // Reading the configuration, which happens once, chooses a folder as well.
    drop(CubeClRuntimeConfig::get());
    environment::set_root(folder);
}

/// One adapter that wgpu found.
struct Adapter {
    name: String,
    kind: DeviceKind,
    software: bool,
}

impl Adapter {
    fn open(&self) -> Result<ComputeDevice, String> {
        // A device is opened once in a process and asked for by its kind afterwards.
        static OPENED: Mutex<Vec<DeviceKind>> = Mutex::new(Vec::new());
        let mut opened = OPENED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let device = if opened.contains(&self.kind) {
            Device::wgpu(self.kind.clone())
        } else {
            let device = Device::wgpu_options()
                .device_kind(self.kind.clone())
                .init()
                .map_err(|error| error.to_string())?;
            opened.push(self.kind.clone());
            device
        };
        let precision = match device.supports_dtype(DType::F16) {
            true => Precision::Half,
            false => Precision::Full,
        };
        Ok(ComputeDevice { device, name: self.name.clone(), cpu: false, precision })
    }
}

fn names(adapters: &[Adapter]) -> String {
    let names: Vec<&str> = adapters.iter().map(|adapter| adapter.name.as_str()).collect();
    names.join(", ")
}

/// The adapters of the first graphics interface that has a real one, or any: real ones first, software drivers last.
/// The order within a kind is wgpu's, which is what [`DeviceKind`] counts.
fn adapters() -> Vec<Adapter> {
    let mut software_only = Vec::new();
    for backend in [wgpu::Backends::VULKAN, wgpu::Backends::METAL, wgpu::Backends::DX12] {
        let found = adapters_of(backend);
        if found.iter().any(|adapter| !adapter.software) {
            return found;
        }
        if software_only.is_empty() {
            software_only = found;
        }
    }
    software_only
}

fn adapters_of(backends: wgpu::Backends) -> Vec<Adapter> {
    if !wgpu::Instance::enabled_backend_features().intersects(backends) {
        return Vec::new();
    }
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let (mut discrete, mut integrated, mut virtual_gpus, mut software) = (0, 0, 0, 0);
    let mut found = Vec::new();
    for adapter in burn::tensor::read_sync(instance.enumerate_adapters(backends)) {
        let info = adapter.get_info();
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => DeviceKind::DiscreteGpu(count(&mut discrete)),
            wgpu::DeviceType::IntegratedGpu => DeviceKind::IntegratedGpu(count(&mut integrated)),
            wgpu::DeviceType::VirtualGpu => DeviceKind::VirtualGpu(count(&mut virtual_gpus)),
            // Only the first software driver can be named.
            wgpu::DeviceType::Cpu if count(&mut software) == 0 => DeviceKind::Cpu,
            wgpu::DeviceType::Cpu | wgpu::DeviceType::Other => continue,
        };
        found.push(Adapter { name: info.name, software: kind == DeviceKind::Cpu, kind });
    }
    found.sort_by_key(|adapter| adapter.software);
    found
}

fn count(counter: &mut usize) -> usize {
    *counter += 1;
    *counter - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_print() {
        for text in ["auto", "cpu", "wgpu", "wgpu:3"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        assert_eq!("CPU".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cpu);
        for text in ["", "gpu", "wgpu:", "wgpu:x", "wgpu:-1"] {
            assert!(
                matches!(text.parse::<DeviceChoice>(), Err(MlError::UnknownName { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn precisions_parse_and_print() {
        for choice in [PrecisionChoice::Auto, PrecisionChoice::Full] {
            assert_eq!(choice.to_string().parse::<PrecisionChoice>().unwrap(), choice);
        }
        let error = "half".parse::<PrecisionChoice>().unwrap_err();
        assert!(matches!(error, MlError::UnknownName { kind: "precision", .. }), "{error}");
    }

    #[test]
    fn auto_takes_no_software_driver() {
        let device = ComputeDevice::open(DeviceChoice::Auto).unwrap();
        let software: Vec<String> = adapters()
            .into_iter()
            .filter(|adapter| adapter.software)
            .map(|adapter| adapter.name)
            .collect();
        assert!(!software.contains(&device.name().to_owned()), "took {}", device.name());
    }

    #[test]
    fn an_adapter_that_is_not_there_is_an_error() {
        let error = ComputeDevice::open(DeviceChoice::Wgpu(Some(999))).unwrap_err();
        assert!(
            matches!(error, MlError::NoDevice { choice: DeviceChoice::Wgpu(Some(999)), .. }),
            "{error}"
        );
    }
}
