// SPDX-License-Identifier: GPL-2.0-or-later
//! Marks in the trace of the kernel that this QEMU runs on: page requests of devices of the host,
//! which that kernel traces, too. So both have one clock. `SVM_TRACE_MARKER` names the kernel's file
//! (`trace_marker` of a trace instance); without it there are no marks.

use std::fs::File;
use std::io::Write as _;
use std::sync::OnceLock;

use pcie_ats::{PageRequest, Pasid, PrgResponse, ResponseCode};

use crate::message;

/// The variable that names the file.
const VARIABLE: &str = "SVM_TRACE_MARKER";

/// The file, if there is one.
fn file() -> Option<&'static File> {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    let open = || {
        let path = std::env::var_os(VARIABLE)?;
        match File::options().write(true).open(&path) {
            Ok(file) => Some(file),
            Err(error) => {
                let path = path.to_string_lossy();
                message::warning(&format!("no marks in the kernel's trace: {path}: {error}"));
                None
            }
        }
    };
    FILE.get_or_init(open).as_ref()
}

/// Writes a mark. A kernel whose tracing is off refuses it.
fn write(mut to: &File, mark: &str) {
    let _ = to.write_all(mark.as_bytes());
}

/// A page request of a device of the host is given to the guest's unit. `index` is that of its group
/// in the host, as the device chose it.
pub fn page_request(request: &PageRequest, index: Option<u32>) {
    if let Some(file) = file() {
        write(file, &of_request(request, index));
    }
}

/// The guest's unit answers a page request group of a device of the host.
pub fn prg_response(response: &PrgResponse) {
    if let Some(file) = file() {
        write(file, &of_response(response));
    }
}

/// Requests and responses without PASID have none.
fn pasid(pasid: Option<Pasid>) -> String {
    pasid.map_or_else(|| "none".to_owned(), |pasid| format!("{:#x}", pasid.get()))
}

fn of_request(request: &PageRequest, index: Option<u32>) -> String {
    let index = index.map_or_else(|| "none".to_owned(), |index| format!("{index:#x}"));
    format!(
        "svm page_request pasid={} address={:#x} host_index={index} index={:#x}\n",
        pasid(request.pasid),
        request.address,
        request.prgi.get(),
    )
}

fn of_response(response: &PrgResponse) -> String {
    let code = match response.code {
        ResponseCode::Success => "success",
        ResponseCode::InvalidRequest => "invalid",
        ResponseCode::ResponseFailure => "failure",
    };
    format!(
        "svm prg_response pasid={} index={:#x} code={code}\n",
        pasid(response.pasid),
        response.prgi.get(),
    )
}

#[cfg(test)]
mod tests {
    use pcie_ats::Prgi;

    use super::*;

    #[test]
    fn marks_have_both_indices_of_a_group() {
        let request = PageRequest {
            address: 0x7000,
            pasid: Some(Pasid::new(5).unwrap()),
            read: true,
            write: false,
            execute: false,
            privileged: false,
            prgi: Prgi::new(17).unwrap(),
            last: true,
        };
        assert_eq!(
            of_request(&request, Some(3)),
            "svm page_request pasid=0x5 address=0x7000 host_index=0x3 index=0x11\n"
        );
        let response = PrgResponse {
            prgi: request.prgi,
            pasid: None,
            code: ResponseCode::InvalidRequest,
        };
        assert_eq!(
            of_response(&response),
            "svm prg_response pasid=none index=0x11 code=invalid\n"
        );
    }
}
