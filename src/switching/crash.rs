//! Places at which a test may kill the program: between any two steps of a switching. Only in debug builds.

/// Kills the program here if the environment says so (`PMGATE_KILL_AT=intended`), as `kill -9` would.
#[cfg(debug_assertions)]
pub(super) fn point(name: &str) {
    if std::env::var("PMGATE_KILL_AT").is_ok_and(|at| at == name) {
        let me = rustix::process::getpid();
        // It ends here; if the kernel refuses, abort does the same less quietly.
        rustix::process::kill_process(me, rustix::process::Signal::KILL).ok();
        std::process::abort();
    }
}

/// Nothing, in a release.
#[cfg(not(debug_assertions))]
pub(super) fn point(_: &str) {}
