//! Answers a request.

use crate::error::Result;
use crate::list::{list, show};
use crate::merge::merge;
use crate::prune::prune;
use crate::read::read_disk;
use crate::receive::{Report, receive};
use crate::request::{Done, Request};
use crate::verify::verify;
use std::io::{BufRead, Write};

/// Does what a request asks. `payload` is what follows the request; a disk that is read goes to `output` unless it names a file.
///
/// # Errors
/// Those of the request.
pub fn answer(
    request: &Request,
    payload: &mut dyn BufRead,
    output: &mut dyn Write,
    report: Report<'_>,
) -> Result<Done> {
    Ok(match request {
        Request::Receive(request) => Done::Receive(receive(request, payload, report)?),
        Request::List(request) => Done::List(list(request)?),
        Request::Show(request) => Done::Show(Box::new(show(request)?)),
        Request::Read(request) => Done::Read(read_disk(request, output, report)?),
        Request::Verify(request) => Done::Verify(verify(request, report)?),
        Request::Merge(request) => Done::Merge(merge(request, report)?),
        Request::Prune(request) => Done::Prune(prune(request, report)?),
    })
}
