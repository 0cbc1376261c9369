//! The edge proxy of a fleet for SIM-card look-ups on China Mobile's IoT platform (CMIOT_API2002).

pub mod clock;
