//! How much may be warmed now: the window of a load and whether it is of use, the ceiling of the agent, the bytes in flight of a device.

pub mod admission;
pub mod benefit;
pub mod budget;
pub mod device;
pub mod pressure;
pub mod reliance;
pub mod window;
