//! Packages, repositories, boot slots and translation modules.
