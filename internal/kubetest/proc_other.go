//go:build unix && !linux

package kubetest

import "syscall"

// childAttr is empty where the kernel offers no signal on the death of the parent. There the owner kills the process group of a
// supervisor that was itself killed.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
