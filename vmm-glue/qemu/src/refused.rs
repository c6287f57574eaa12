// SPDX-License-Identifier: GPL-2.0-or-later
//! The response to page requests that QEMU refuses.
//!
//! In QEMU a page request is a function call that may fail; for a device it is a posted message,
//! and its group always gets a response. Hardware responds itself if it cannot queue a request
//! (VT-d 7.4.1): Success if the last request of a group met a full queue, so that the device
//! requests its pages again; Invalid Request if the request is not permitted. VT-d does not specify
//! the response if the descriptor could not be written. As in this project's unit it is Response
//! Failure, which reports that requests are lost and says nothing about the page (PCIe 10.4.2).
//! Requests that are not the last of their group share its response; stop markers (PCIe 10.4.1.2)
//! have none.

use pcie_ats::{PageRequest, ResponseCode};

use crate::ats::RequestError;

/// The immediate response of hardware to a refused request; none if the request is not the last of
/// its group. The device decides when to repeat it.
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
