//! How many files a process may have open, for each connection is one.

/// Raises what this process may have open to the most that the system lets it: the lower number that processes begin with
/// is for programs that cannot count so far. Where the system knows no such thing, nothing is done.
///
/// # Errors
/// When the system refuses.
pub fn raise_limit() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(())
}

/// How many this process may have open now; nothing where there is no end to it.
#[must_use]
pub fn limit() -> Option<usize> {
    #[cfg(unix)]
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    let most = None::<u64>;
    most.and_then(|most| usize::try_from(most).ok())
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    #[test]
    fn a_process_may_open_as_many_files_as_the_system_lets_it() {
        use rustix::process::{Resource, getrlimit};
        super::raise_limit().unwrap();
        let most = getrlimit(Resource::Nofile).maximum;
        assert_eq!(super::limit(), most.and_then(|most| usize::try_from(most).ok()));
    }
}
