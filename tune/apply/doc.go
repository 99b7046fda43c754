// Package apply changes settings of a host and changes them back.
//
// Before anything is changed, every intention of a run, with the value that the setting has now, is in a journal on
// disk and flushed to it. A run that is killed at any moment therefore leaves a journal that Revert can undo: an entry
// whose setting has the new value is set back, one whose setting still has the old value is skipped, and one whose
// setting has a third value was changed by somebody else and is left alone and reported. Each setting changes by one
// system call, and is read back.
//
// Nothing is changed on an interface that the caller did not name. Without the privilege, nothing is changed at all,
// and PrivilegeError holds the commands to run instead. One run at a time has a journal; that is kept with a lock on
// it.
package apply
