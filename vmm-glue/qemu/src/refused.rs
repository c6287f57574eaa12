// SPDX-License-Identifier: GPL-2.0-or-later
//! What the device hears of page requests that QEMU does not take.
//!
//! To QEMU a page request is a function call that may fail; to a device it is a posted message,
//! whose group is always answered. Hardware answers by itself where it cannot queue a request
//! (VT-d 7.4.1): a group whose last request met a full queue is answered Success, so that the
//! device asks for its pages again; one that is not permitted, Invalid Request. VT-d leaves open
//! what becomes of one whose descriptor could not be written: as in this project's unit, it is
//! answered Response Failure, which says that requests are lost and nothing of the page
//! (PCIe 10.4.2). Requests that are not the last of their group are answered with it; stop markers
//! (PCIe 10.4.1.2) have no answer.

use pcie_ats::{PageRequest, ResponseCode};

use crate::pci::RequestError;

/// The answer that hardware gives to a refused request, at once; none to one that is not the last
/// of its group. How soon a device asks again is its own decision.
pub fn automatic(request: &PageRequest, refusal: RequestError) -> Option<ResponseCode> {
    let is_stop_marker = !request.read && !request.write;
    if !request.last || is_stop_marker {
        return None;
    }
    Some(match refusal {
        RequestError::QueueFull => ResponseCode::Success,
        RequestError::Access => ResponseCode::ResponseFailure,
        RequestError::NotPermitted | RequestError::NoIommu | RequestError::Invalid => {
            ResponseCode::InvalidRequest
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcie_ats::Prgi;

    fn request(last: bool) -> PageRequest {
        PageRequest {
            address: 0x1000,
            pasid: None,
            read: true,
            write: false,
            execute: false,
            privileged: false,
            prgi: Prgi::new(0).unwrap(),
            last,
        }
    }

    #[test]
    fn a_full_queue_is_answered_success() {
        assert_eq!(
            automatic(&request(true), RequestError::QueueFull),
            Some(ResponseCode::Success)
        );
    }

    #[test]
    fn what_is_not_permitted_is_answered_invalid_at_once() {
        for refusal in [
            RequestError::NotPermitted,
            RequestError::NoIommu,
            RequestError::Invalid,
        ] {
            assert_eq!(
                automatic(&request(true), refusal),
                Some(ResponseCode::InvalidRequest)
            );
        }
        assert_eq!(
            automatic(&request(true), RequestError::Access),
            Some(ResponseCode::ResponseFailure)
        );
    }

    #[test]
    fn only_the_last_request_of_a_group_is_answered() {
        for refusal in [
            RequestError::QueueFull,
            RequestError::NotPermitted,
            RequestError::Access,
        ] {
            assert_eq!(automatic(&request(false), refusal), None);
        }
    }

    #[test]
    fn a_stop_marker_has_no_answer() {
        let marker = PageRequest {
            read: false,
            ..request(true)
        };
        assert_eq!(automatic(&marker, RequestError::QueueFull), None);
    }
}
