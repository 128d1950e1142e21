package kubetest

import "syscall"

// childAttr makes the kernel kill a component when the supervisor's main thread ends, which covers a supervisor that is itself
// killed. Components must therefore be started from the main thread; package initialisation, where the supervisor runs, is on it.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
