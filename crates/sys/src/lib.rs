//! System calls: the only unsafe code of the project, one file a facility.
