//! Director and ingress: BPF sources, the ABI header that they share with us, and the loader.
