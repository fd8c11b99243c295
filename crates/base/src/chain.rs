//! Prints an error with all its causes in one line: `a: b: c`.

use std::error::Error;
use std::fmt;

/// Displays an error and its sources, joined by `: `. An error's own `Display` never includes
/// its source, so nothing is said twice.
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(out, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);

    impl fmt::Display for Outer {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("read the port")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn chain_names_every_cause_once() {
        let cause = "x".parse::<u16>().unwrap_err();
        assert_eq!(
            Chain(&Outer(cause)).to_string(),
            "read the port: invalid digit found in string"
        );
    }
}
