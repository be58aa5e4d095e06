//! What went wrong: a canonical code (the numbers of base/error.hpp), one line, and for templates
//! the line of the template.

/// The subset of base::error_code this crate returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    InvalidArgument = 3,
    NotFound = 5,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

#[derive(Clone, Debug)]
pub struct Fault {
    pub code: Code,
    pub message: String,
    /// 1-based line in the template, 0 where it does not apply.
    pub line: u32,
}

pub type Outcome<T> = Result<T, Fault>;

impl Fault {
    pub fn new(code: Code, message: impl Into<String>) -> Fault {
        Fault { code, message: message.into(), line: 0 }
    }

    pub fn invalid(message: impl Into<String>) -> Fault {
        Fault::new(Code::InvalidArgument, message)
    }

    pub fn exhausted(message: impl Into<String>) -> Fault {
        Fault::new(Code::ResourceExhausted, message)
    }

    /// Names the template's line unless an inner expression already did.
    pub fn at(mut self, line: u32) -> Fault {
        if self.line == 0 {
            self.line = line;
        }
        self
    }

    /// One line, whatever the library's message held.
    pub fn text(&self) -> String {
        let one_line = self.message.replace(['\n', '\r'], " ");
        if self.line == 0 {
            one_line
        } else {
            format!("chat template line {}: {one_line}", self.line)
        }
    }
}
