//! The device's load, as its heartbeats report it: processors, memory and disk by sysinfo, the
//! graphics processor by NVML where its library loads.
//!
//! # Invariants
//!
//! 1. A graphics processor that cannot be measured is absent, never zero. (The wire has no such
//!    choice for processors, memory and disk: where the system does not tell, they are 0.0.)
//! 2. Sampling runs on a thread of its own: a slow driver call delays no datagram.
//! 3. Every fraction is from 0.0 to 1.0.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_core::wire::message::Vitals;
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use sysinfo::{DiskRefreshKind, Disks, System};
use tokio::sync::watch;

/// How often the load is measured: often enough that a busy GPU is noticed before the question
/// comes, rare enough to cost nothing.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// Measures the load of this machine.
pub struct Sampler {
    system: Option<System>,
    disks: Option<Disks>,
    data_dir: PathBuf,
    nvml: Option<Nvml>,
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampler")
            .field("gpu", &self.nvml.is_some())
            .finish_non_exhaustive()
    }
}

impl Sampler {
    /// Takes the first measurement, which the processors' load is counted from. The disk is the
    /// one that holds `data_dir`.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        let unsupported =
            |error: &sysinfo::Error| tracing::warn!(%error, "this system does not tell its load");
        let mut system = System::new().inspect_err(unsupported).ok();
        if let Some(system) = &mut system {
            system.refresh_cpu_usage();
        }
        let storage = DiskRefreshKind::nothing().with_storage();
        let disks = Disks::new_with_refreshed_list_specifics(storage)
            .inspect_err(unsupported)
            .ok();
        let nvml = Nvml::init()
            .inspect_err(|error| tracing::debug!(%error, "no NVML: GPU vitals are absent"))
            .ok();
        Self {
            system,
            disks,
            // Mount points are absolute, and so must be what is compared with them.
            data_dir: data_dir
                .canonicalize()
                .unwrap_or_else(|_| data_dir.to_owned()),
            nvml,
        }
    }

    /// Measures now; the processors' load is the mean since the last measurement.
    ///
    /// `active_sessions`, `pending_queries` and `loaded_model` are the agent's to fill in.
    pub fn sample(&mut self) -> Vitals {
        let (cpu_usage, memory_usage) = self.system.as_mut().map_or((0.0, None), |system| {
            system.refresh_cpu_usage();
            system.refresh_memory();
            let cpu = (system.global_cpu_usage() / 100.0).clamp(0.0, 1.0);
            (cpu, fraction(system.used_memory(), system.total_memory()))
        });
        if let Some(disks) = &mut self.disks {
            disks.refresh_specifics(false, DiskRefreshKind::nothing().with_storage());
        }
        let gpu = self.nvml.as_ref().and_then(busiest_gpu);
        Vitals {
            cpu_usage,
            memory_usage: memory_usage.unwrap_or(0.0),
            disk_usage: self.disk_usage().unwrap_or(0.0),
            gpu_usage: gpu.as_ref().and_then(|gpu| gpu.usage),
            gpu_vram_usage: gpu.as_ref().and_then(|gpu| gpu.memory),
            gpu_temp_celsius: gpu.as_ref().and_then(|gpu| gpu.celsius),
            active_sessions: 0,
            pending_queries: 0,
            loaded_model: None,
        }
    }

    /// The fullness of the disk with the longest mount point above the data folder.
    fn disk_usage(&self) -> Option<f32> {
        let holds = |disk: &&sysinfo::Disk| self.data_dir.starts_with(disk.mount_point());
        let depth = |disk: &&sysinfo::Disk| disk.mount_point().components().count();
        let disk = self
            .disks
            .as_ref()?
            .iter()
            .filter(holds)
            .max_by_key(depth)?;
        let used = disk.total_space().saturating_sub(disk.available_space());
        fraction(used, disk.total_space())
    }
}

/// Measures every [`SAMPLE_EVERY`] on a thread of its own until nobody listens any more.
///
/// The first measurement arrives at once.
#[must_use]
pub fn watch(data_dir: &Path) -> watch::Receiver<Vitals> {
    let (sender, receiver) = watch::channel(Vitals::default());
    let data_dir = data_dir.to_owned();
    let run = move || {
        let mut sampler = Sampler::new(&data_dir);
        // The processors' load needs two measurements this far apart to mean anything.
        std::thread::sleep(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL);
        while sender.send(sampler.sample()).is_ok() {
            std::thread::sleep(SAMPLE_EVERY);
        }
    };
    if let Err(error) = std::thread::Builder::new()
        .name("vitals".to_owned())
        .spawn(run)
    {
        tracing::warn!(%error, "vitals are not measured");
    }
    receiver
}

/// One graphics processor.
#[derive(Clone, Copy, Debug, Default)]
struct Gpu {
    usage: Option<f32>,
    memory: Option<f32>,
    celsius: Option<f32>,
}

/// The busiest graphics processor: the one a local model would have to wait for.
fn busiest_gpu(nvml: &Nvml) -> Option<Gpu> {
    let count = nvml.device_count().ok()?;
    let gpus = (0..count)
        .filter_map(|index| nvml.device_by_index(index).ok())
        .map(|device| Gpu {
            usage: device
                .utilization_rates()
                .ok()
                .and_then(|rates| fraction(rates.gpu.into(), 100)),
            memory: device
                .memory_info()
                .ok()
                .and_then(|memory| fraction(memory.used, memory.total)),
            celsius: device
                .temperature(TemperatureSensor::Gpu)
                .ok()
                .map(|celsius| celsius as f32),
        });
    gpus.max_by(|a, b| a.usage.unwrap_or(0.0).total_cmp(&b.usage.unwrap_or(0.0)))
}

/// `part` of `whole`, 0.0–1.0; nothing of nothing is unknown.
fn fraction(part: u64, whole: u64) -> Option<f32> {
    (whole > 0).then(|| ((part as f64 / whole as f64) as f32).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_load_is_made_of_fractions_and_its_memory_is_not_empty() {
        let dir = std::env::temp_dir();
        let vitals = Sampler::new(&dir).sample();
        for value in [vitals.cpu_usage, vitals.memory_usage, vitals.disk_usage] {
            assert!((0.0..=1.0).contains(&value), "{vitals:?}");
        }
        assert!(vitals.memory_usage > 0.0, "{vitals:?}");
    }

    #[test]
    fn without_the_gpus_library_its_vitals_are_absent_and_not_zero() {
        let mut sampler = Sampler::new(&std::env::temp_dir());
        sampler.nvml = None;
        let json = serde_json::to_value(sampler.sample()).unwrap();
        assert!(json.get("gpu_usage").is_none() && json.get("gpu_temp_celsius").is_none());
    }

    #[test]
    fn a_fraction_of_nothing_is_unknown() {
        assert_eq!(fraction(1, 0), None);
        assert_eq!(fraction(1, 4), Some(0.25));
        assert_eq!(fraction(9, 4), Some(1.0));
    }
}
