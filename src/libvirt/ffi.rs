//! What the `virt` crate does not wrap, or wraps in a way that is not sound; the only unsafe code of the program.

use super::events::{Lifecycle, LifecycleEvent};
use super::types::{BlockInfo, JobKind, JobOperation, JobStats};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr;
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt_sys as sys;

/// Aborts the job that runs on a domain.
pub(super) fn abort_job(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the handle is valid as long as `domain` lives, which is beyond the call.
    match unsafe { sys::virDomainAbortJob(domain.as_ptr()) } {
        -1 => Err(Error::last_error()),
        _ => Ok(()),
    }
}

/// Sizes of a disk. (`virt` 0.5 reads uninitialised memory here when libvirt reports an error.)
pub(super) fn block_info(domain: &Domain, disk: &str) -> Result<BlockInfo, Error> {
    let disk = CString::new(disk)?;
    let mut info = sys::virDomainBlockInfo { capacity: 0, allocation: 0, physical: 0 };
    // SAFETY: handle, string and struct outlive the call, which only writes to the struct.
    match unsafe { sys::virDomainGetBlockInfo(domain.as_ptr(), disk.as_ptr(), &raw mut info, 0) } {
        -1 => Err(Error::last_error()),
        _ => Ok(BlockInfo { capacity: info.capacity, allocation: info.allocation, physical: info.physical }),
    }
}

/// A host's memory in bytes, as its kernel counts it in `/proc/meminfo`.
///
/// `virNodeGetInfo` adds up the NUMA nodes' `meminfo` instead, which on machines that initialise memory lazily, or have
/// hot-added memory, holds what was initialised so far and grows with use.
pub(super) fn node_memory(connect: &Connect) -> Result<u64, Error> {
    let mut count: c_int = 0;
    // SAFETY: the handle outlives the call; without an array libvirt only writes the number of figures to `count`.
    let asked = unsafe {
        sys::virNodeGetMemoryStats(
            connect.as_ptr(),
            sys::VIR_NODE_MEMORY_STATS_ALL_CELLS,
            ptr::null_mut(),
            &raw mut count,
            0,
        )
    };
    if asked == -1 {
        return Err(Error::last_error());
    }
    let none = sys::virNodeMemoryStats { field: [0; sys::VIR_NODE_MEMORY_STATS_FIELD_LENGTH as usize], value: 0 };
    let mut figures = vec![none; usize::try_from(count).unwrap_or(0)];
    // SAFETY: the array holds `count` figures and outlives the call.
    let asked = unsafe {
        sys::virNodeGetMemoryStats(
            connect.as_ptr(),
            sys::VIR_NODE_MEMORY_STATS_ALL_CELLS,
            figures.as_mut_ptr(),
            &raw mut count,
            0,
        )
    };
    if asked == -1 {
        return Err(Error::last_error());
    }
    let total = |f: &&sys::virNodeMemoryStats| {
        // SAFETY: libvirt ends each name with a NUL within its field.
        unsafe { CStr::from_ptr(f.field.as_ptr()) == sys::VIR_NODE_MEMORY_STATS_TOTAL }
    };
    Ok(figures.iter().find(total).map_or(0, |f| f.value << 10))
}

/// Statistics of the running or the last completed job. (`virt` 0.5 builds a vector from a null pointer when there
/// are none.)
pub(super) fn job_stats(domain: &Domain, completed: bool) -> Result<JobStats, Error> {
    let (mut kind, mut count): (c_int, c_int) = (0, 0);
    let mut params: sys::virTypedParameterPtr = ptr::null_mut();
    let kept = sys::VIR_DOMAIN_JOB_STATS_COMPLETED | sys::VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED;
    let flags = if completed { kept } else { 0 };
    // SAFETY: the handle is valid; the three places outlive the call, which hands us an array we free below.
    let done =
        unsafe { sys::virDomainGetJobStats(domain.as_ptr(), &raw mut kind, &raw mut params, &raw mut count, flags) };
    if done == -1 {
        return Err(Error::last_error());
    }
    let number = |name: &CStr| {
        let mut value = 0;
        // SAFETY: `params` holds `count` entries (or is null with 0 of them) until freed below; a missing name
        // leaves `value` alone.
        unsafe { sys::virTypedParamsGetULLong(params, count, name.as_ptr(), &raw mut value) };
        value
    };
    let int = |name: &CStr| {
        let mut value = 0;
        // SAFETY: as above.
        unsafe { sys::virTypedParamsGetInt(params, count, name.as_ptr(), &raw mut value) };
        value
    };
    let stats = JobStats {
        kind: match kind as c_uint {
            sys::VIR_DOMAIN_JOB_BOUNDED | sys::VIR_DOMAIN_JOB_UNBOUNDED => JobKind::Running,
            sys::VIR_DOMAIN_JOB_COMPLETED => JobKind::Completed,
            sys::VIR_DOMAIN_JOB_FAILED => JobKind::Failed,
            sys::VIR_DOMAIN_JOB_CANCELLED => JobKind::Cancelled,
            _ => JobKind::None,
        },
        operation: operation(int(sys::VIR_DOMAIN_JOB_OPERATION)),
        memory_total: number(sys::VIR_DOMAIN_JOB_MEMORY_TOTAL),
        memory_processed: number(sys::VIR_DOMAIN_JOB_MEMORY_PROCESSED),
        memory_remaining: number(sys::VIR_DOMAIN_JOB_MEMORY_REMAINING),
        rate: number(sys::VIR_DOMAIN_JOB_MEMORY_BPS),
        dirty_rate: number(sys::VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE)
            .saturating_mul(number(sys::VIR_DOMAIN_JOB_MEMORY_PAGE_SIZE)),
        iteration: number(sys::VIR_DOMAIN_JOB_MEMORY_ITERATION),
        throttle: int(sys::VIR_DOMAIN_JOB_AUTO_CONVERGE_THROTTLE),
        elapsed_ms: number(sys::VIR_DOMAIN_JOB_TIME_ELAPSED),
        downtime_ms: number(sys::VIR_DOMAIN_JOB_DOWNTIME),
    };
    // SAFETY: the array came from virDomainGetJobStats and is not used after this.
    unsafe { sys::virTypedParamsFree(params, count) };
    Ok(stats)
}

fn operation(raw: c_int) -> JobOperation {
    match raw as c_uint {
        sys::VIR_DOMAIN_JOB_OPERATION_START => JobOperation::Start,
        sys::VIR_DOMAIN_JOB_OPERATION_SAVE => JobOperation::Save,
        sys::VIR_DOMAIN_JOB_OPERATION_RESTORE => JobOperation::Restore,
        sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN => JobOperation::MigrationIn,
        sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT => JobOperation::MigrationOut,
        sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT
        | sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_REVERT
        | sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_DELETE => JobOperation::Snapshot,
        sys::VIR_DOMAIN_JOB_OPERATION_DUMP => JobOperation::Dump,
        sys::VIR_DOMAIN_JOB_OPERATION_BACKUP => JobOperation::Backup,
        _ => JobOperation::Unknown,
    }
}

/// All domains of a host with their state and its reason, as libvirt's numbers: one call, which asks no QEMU, so that
/// one that hangs delays no other.
pub(super) fn states(connect: &Connect) -> Result<Vec<(Domain, c_int, c_int)>, Error> {
    let mut records: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
    // SAFETY: the handle is valid; libvirt hands us a null-terminated list of so many records, ours to free.
    let count =
        unsafe { sys::virConnectGetAllDomainStats(connect.as_ptr(), sys::VIR_DOMAIN_STATS_STATE, &raw mut records, 0) };
    let Ok(count) = usize::try_from(count) else { return Err(Error::last_error()) };
    let mut domains = Vec::with_capacity(count);
    for n in 0..count {
        // SAFETY: `n` is below the number of records, each of which is valid until the list is freed below; the
        // domain gets a reference of its own, which the handle owns.
        unsafe {
            let record = &**records.add(n);
            let int = |name: &CStr| {
                let mut value = 0;
                sys::virTypedParamsGetInt(record.params, record.nparams, name.as_ptr(), &raw mut value);
                value
            };
            let (state, reason) = (int(sys::VIR_DOMAIN_STATS_STATE_STATE), int(sys::VIR_DOMAIN_STATS_STATE_REASON));
            // Fails for an invalid handle alone, which libvirt does not give.
            sys::virDomainRef(record.dom);
            domains.push((Domain::from_ptr(record.dom), state, reason));
        }
    }
    // SAFETY: the list came from virConnectGetAllDomainStats and is not used after this.
    unsafe { sys::virDomainStatsRecordListFree(records) };
    Ok(domains)
}

/// State and reason of one domain, as libvirt's numbers.
pub(super) fn state(domain: &Domain) -> Result<(c_int, c_int), Error> {
    let (mut state, mut reason) = (0, 0);
    // SAFETY: the handle is valid, and both places outlive the call.
    match unsafe { sys::virDomainGetState(domain.as_ptr(), &raw mut state, &raw mut reason, 0) } {
        -1 => Err(Error::last_error()),
        _ => Ok((state, reason)),
    }
}

/// The processor that all of `cpus` can give to guests of this virtualisation type.
pub(super) fn baseline_cpu(connect: &Connect, virttype: &str, cpus: &[String]) -> Result<String, Error> {
    let virttype = CString::new(virttype)?;
    let cpus = cpus.iter().map(|c| CString::new(c.as_str())).collect::<Result<Vec<_>, _>>()?;
    let mut pointers: Vec<*const c_char> = cpus.iter().map(|c| c.as_ptr()).collect();
    // SAFETY: handle, strings and the array of pointers to them outlive the call; null means libvirt's default.
    let text = unsafe {
        sys::virConnectBaselineHypervisorCPU(
            connect.as_ptr(),
            ptr::null(),
            ptr::null(),
            ptr::null(),
            virttype.as_ptr(),
            pointers.as_mut_ptr(),
            pointers.len() as c_uint,
            sys::VIR_CONNECT_BASELINE_CPU_MIGRATABLE,
        )
    };
    if text.is_null() {
        return Err(Error::last_error());
    }
    // SAFETY: libvirt gives a NUL-terminated string allocated by malloc, ours to free, used only in between.
    let owned = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: see above.
    unsafe { nix::libc::free(text.cast()) };
    Ok(owned)
}

/// Whether guests of this virtualisation type can have this processor.
pub(super) fn can_give_cpu(connect: &Connect, virttype: &str, cpu: &str) -> Result<bool, Error> {
    let (virttype, cpu) = (CString::new(virttype)?, CString::new(cpu)?);
    // SAFETY: handle and strings outlive the call; null means libvirt's default.
    let answer = unsafe {
        sys::virConnectCompareHypervisorCPU(
            connect.as_ptr(),
            ptr::null(),
            ptr::null(),
            ptr::null(),
            virttype.as_ptr(),
            cpu.as_ptr(),
            0,
        )
    };
    match answer {
        sys::VIR_CPU_COMPARE_ERROR => Err(Error::last_error()),
        sys::VIR_CPU_COMPARE_INCOMPATIBLE => Ok(false),
        _ => Ok(true),
    }
}

type Events = UnboundedSender<LifecycleEvent>;

unsafe extern "C" fn on_lifecycle(
    _connect: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) {
    let mut name = String::new();
    let mut id = [0_u8; sys::VIR_UUID_BUFLEN as usize];
    // SAFETY: libvirt gives a domain that is valid during the callback; its name lives as long as it.
    unsafe {
        let text = sys::virDomainGetName(domain);
        if !text.is_null() {
            name = CStr::from_ptr(text).to_string_lossy().into_owned();
        }
        if sys::virDomainGetUUID(domain, id.as_mut_ptr()) == -1 {
            return;
        }
    }
    let change = Lifecycle::from_raw(event as c_uint, detail as c_uint);
    // SAFETY: `opaque` is the box made in `watch_lifecycle`, freed by libvirt only after the last callback.
    let events = unsafe { &*opaque.cast::<Events>() };
    // The receiver may be gone already.
    let _ = events.send(LifecycleEvent::Changed { name, uuid: Uuid::from_bytes(id), change });
}

unsafe extern "C" fn on_close(_connect: sys::virConnectPtr, _reason: c_int, opaque: *mut c_void) {
    // SAFETY: as in `on_lifecycle`.
    let events = unsafe { &*opaque.cast::<Events>() };
    // The receiver may be gone already.
    let _ = events.send(LifecycleEvent::Lost);
}

unsafe extern "C" fn free_events(opaque: *mut c_void) {
    // SAFETY: libvirt calls this once for each box handed over in `watch_lifecycle`.
    drop(unsafe { Box::from_raw(opaque.cast::<Events>()) });
}

/// Number of a registered callback.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch(c_int);

/// Sends lifecycle changes of all domains, and the loss of the connection, until [`unwatch_lifecycle`]; registered callbacks
/// keep the connection open.
pub(super) fn watch_lifecycle(connect: &Connect, events: Events) -> Result<Watch, Error> {
    type Callback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void);
    type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
    let opaque = Box::into_raw(Box::new(events.clone())).cast::<c_void>();
    // SAFETY: libvirt's own API takes every callback as a generic one and calls it by the event's signature, which
    // for LIFECYCLE is that of `on_lifecycle`.
    let callback = unsafe { std::mem::transmute::<Callback, Generic>(on_lifecycle) };
    // SAFETY: the handle is valid, a null domain means all; libvirt owns the box from here if it succeeds.
    let watch = unsafe {
        sys::virConnectDomainEventRegisterAny(
            connect.as_ptr(),
            ptr::null_mut(),
            sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int,
            Some(callback),
            opaque,
            Some(free_events),
        )
    };
    if watch == -1 {
        // SAFETY: registration failed, so libvirt did not take the box.
        unsafe { free_events(opaque) };
        return Err(Error::last_error());
    }
    let opaque = Box::into_raw(Box::new(events)).cast::<c_void>();
    // SAFETY: as above.
    let closing =
        unsafe { sys::virConnectRegisterCloseCallback(connect.as_ptr(), Some(on_close), opaque, Some(free_events)) };
    if closing == -1 {
        let error = Error::last_error();
        // SAFETY: registration failed, so libvirt did not take the box; the first callback is its own to free.
        unsafe {
            free_events(opaque);
            sys::virConnectDomainEventDeregisterAny(connect.as_ptr(), watch);
        }
        return Err(error);
    }
    Ok(Watch(watch))
}

/// Ends [`watch_lifecycle`].
pub(super) fn unwatch_lifecycle(connect: &Connect, watch: Watch) {
    // SAFETY: the handle is valid; libvirt frees each box after its last callback. Failing means there was none.
    unsafe {
        sys::virConnectDomainEventDeregisterAny(connect.as_ptr(), watch.0);
        sys::virConnectUnregisterCloseCallback(connect.as_ptr(), Some(on_close));
    }
}
