//! What runs on the rack that `RACKHAND_TEST_RACK` names, provisioned or not.

mod hosts;
