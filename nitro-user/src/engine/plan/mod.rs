//! How much may be warmed now: the window of a load, the ceiling of the agent, the bytes in flight of a device.

pub mod admission;
pub mod budget;
pub mod device;
pub mod window;
