// SPDX-License-Identifier: MIT OR Apache-2.0
//! Units that offer devices of the host, and devices below units of the host.

use crate::bench::device;
use host_iommu::compatibility::HostDevice;
use host_iommu::mock::MockDevice;
use vtd::config::{Config, FirstStage, Scalable, Stages};

/// What a unit has of scalable mode.
pub(crate) fn scalable(config: &mut Config) -> &mut Scalable {
    config.scalable.as_mut().unwrap()
}

/// The first stage that a unit offers.
pub(crate) fn first(config: &mut Config) -> &mut FirstStage {
    match &mut scalable(config).stages {
        Stages::First(first) | Stages::Both { first, .. } => first,
        Stages::Second => panic!("the default has a first stage"),
    }
}

/// A device below a unit of the host with a configuration.
pub(crate) fn below(change: impl FnOnce(&mut Config)) -> HostDevice {
    let mut config = Config::default();
    change(&mut config);
    HostDevice {
        iommufd: Some(MockDevice::below(config).unwrap().info),
        behind_bridge: false,
    }
}

/// A unit that offers first stages alone, as it does above another one.
pub(crate) fn unit() -> Config {
    let info = device().info.vtd.unwrap();
    let mut config = Config::default().limited_by(info.cap, info.ecap);
    config.host_address_width = 48;
    config
}

/// A unit that offers second stages alone.
pub(crate) fn shadowing() -> Config {
    let mut config = Config {
        caching_mode: true,
        snoop_control: false,
        ..Config::default()
    };
    scalable(&mut config).stages = Stages::Second;
    config
}
