//! The test rig: disks, limits, model trees, readers.
