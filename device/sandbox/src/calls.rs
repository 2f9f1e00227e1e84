// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! System calls: seccomp(2).
//!
//! One that is not in the list fails with `EPERM`, and kills nobody: to whoever made it that is an error
//! like others, so a list that is too short costs what was asked for, not the cards of all guests. Who
//! has taken a thread over gains nothing by trying.
//!
//! Calls that are newer than this list do not exist (`ENOSYS`), so that a C library which has come to
//! know them falls back to those before. So does clone3(2), as a filter cannot see what it is asked
//! for: the call before it makes threads, and no processes.

use std::collections::BTreeMap;

use libc::{c_long, c_ulong};
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{self, Eq, MaskedEq, Ne};
use seccompiler::{
    apply_filter, sock_filter, BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen,
    SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::Error;

/// What it takes to serve: memory, time, other threads, and descriptors that are there. Some more have
/// conditions: [`conditions`].
const SERVICE: &[c_long] = &[
    // Descriptors.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_pipe2,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    // What a descriptor is of; in /proc, too, which tells an eventfd. No file is opened so.
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    // Sockets that are there, and such of a peer that went: the stream backend connects anew.
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Memory.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_msync,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Threads, and their end. What clone3 is: see above.
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_capget,
    libc::SYS_getpid,
    libc::SYS_geteuid,
    libc::SYS_getuid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // The same as others, by their older names.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

/// What it takes beside that to change what there is: files and sockets come and go.
const PROCESS: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_fchmodat,
    libc::SYS_fchmod,
    libc::SYS_umask,
    libc::SYS_flock,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_dup3,
    libc::SYS_setns,
    // Those who serve limit themselves further.
    libc::SYS_capset,
    libc::SYS_seccomp,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pipe,
];

/// The newest call that was there to be thought about: `file_setattr` of Linux 6.17.
const NEWEST: u32 = 469;

/// The bits of a socket's type that are no flags.
const KIND: u64 = 0xf;

/// What a thread may ask for by prctl(2), and what one that will limit itself further.
const OPTIONS: &[i32] = &[libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA];
const MORE_OPTIONS: &[i32] = &[
    libc::PR_SET_NO_NEW_PRIVS,
    libc::PR_CAPBSET_READ,
    libc::PR_CAPBSET_DROP,
    libc::PR_CAP_AMBIENT,
];

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Whatever it takes to change what there is.
    Process,
    /// To serve clients.
    Service,
    /// To connect by TCP for those that serve.
    Connector,
}

/// Lets the thread make the calls of its role, and no others.
pub(crate) fn limit(role: Role) -> Result<(), Error> {
    let more = match role {
        Role::Process => PROCESS,
        Role::Service | Role::Connector => &[],
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = SERVICE
        .iter()
        .chain(more)
        .map(|&call| (call, Vec::new()))
        .collect();
    rules.extend(conditions(role)?);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?;
    let mut program = missing();
    program.extend(BpfProgram::try_from(filter)?);
    Ok(apply_filter(&program)?)
}

/// Calls that are possible with some arguments.
fn conditions(role: Role) -> Result<Vec<(c_long, Vec<SeccompRule>)>, BackendError> {
    let process = role == Role::Process;
    let any = |more: &[i32], some: &[i32]| {
        let more = more.iter().filter(|_| process);
        let rules = some.iter().chain(more);
        let rule = |&value: &i32| all(&[(0, Dword, Eq, value as u64)]);
        rules.map(rule).collect::<Result<Vec<_>, _>>()
    };
    // Threads, and neither processes nor namespaces.
    let threads = (libc::CLONE_VM | libc::CLONE_THREAD) as u64;
    let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET;
    let threads = all(&[(0, Qword, MaskedEq(threads | namespaces as u64), threads)])?;
    // No memory that code can be run in.
    let data = all(&[(2, Dword, MaskedEq(libc::PROT_EXEC as u64), 0)])?;
    // Signals to itself, as abort(3) does, and limits of itself.
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let own = all(&[(0, Dword, Eq, own as u64)])?;
    let itself = all(&[(0, Dword, Eq, 0)])?;
    // Nothing that types for whoever is at the terminal.
    let typing = [libc::TIOCSTI, libc::TIOCLINUX];
    let typing = typing.map(|request: c_ulong| (1, Dword, Ne, request));
    let mut sockets = any(&[libc::AF_PACKET], &[libc::AF_UNIX])?;
    // Those of IP for a TAP's and an interface's settings, and for metrics; no protocols but the usual, of
    // which Landlock may know nothing.
    for family in [libc::AF_INET, libc::AF_INET6] {
        let usual = [(0, Dword, Eq, family as u64), (2, Dword, Eq, 0)];
        let stream = (1, Dword, MaskedEq(KIND), libc::SOCK_STREAM as u64);
        match role {
            Role::Process => sockets.push(all(&usual)?),
            Role::Connector => sockets.push(all(&[usual[0].clone(), stream, usual[1].clone()])?),
            Role::Service => {}
        }
    }
    Ok(vec![
        (libc::SYS_clone, vec![threads]),
        (libc::SYS_mmap, vec![data.clone()]),
        (libc::SYS_mprotect, vec![data]),
        (libc::SYS_tgkill, vec![own]),
        (libc::SYS_prlimit64, vec![itself]),
        (libc::SYS_ioctl, vec![all(&typing)?]),
        (libc::SYS_prctl, any(MORE_OPTIONS, OPTIONS)?),
        (libc::SYS_socket, sockets),
    ])
}

/// A rule that holds if all conditions on arguments do.
fn all(
    conditions: &[(u8, SeccompCmpArgLen, SeccompCmpOp, u64)],
) -> Result<SeccompRule, BackendError> {
    let conditions = conditions.iter().cloned();
    let conditions =
        conditions.map(|(at, len, op, value)| SeccompCondition::new(at, len, op, value));
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

/// The beginning of a filter: calls that do not exist.
fn missing() -> BpfProgram {
    let step = |code: u32, jt, jf, k: u32| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let absent = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    vec![
        // The number of the call comes first in struct seccomp_data.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 1, 0, NEWEST),
        step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            libc::SYS_clone3 as u32,
        ),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, absent),
    ]
}
