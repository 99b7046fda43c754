//go:build khamsin_canary

package canary

// Enabled tells whether bugs can be planted in this binary.
const Enabled = true
