//! What goes wrong around devices and gateways. One program for all of it: these tests wait for times to be
//! over far more than they work, and so wait side by side.

mod hostile;
mod perils;
mod postgres;
mod survive;
