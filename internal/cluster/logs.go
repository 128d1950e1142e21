package cluster

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

var (
	routeOnce sync.Once
	logSink   atomic.Pointer[func(line string)]
)

// routeLogs takes the log output of the Kubernetes libraries away from
// standard error for the whole process, because reports own the terminal and
// nothing may be printed behind their back. The libraries know one logger for
// the process, so the last Connect's callback gets all lines; a nil callback
// drops them.
func routeLogs(to func(line string)) {
	if to == nil {
		to = func(string) {}
	}
	logSink.Store(&to)
	routeOnce.Do(func() {
		logger := logr.New(funcr.New(func(prefix, args string) {
			line := strings.TrimSpace(prefix + " " + args)
			(*logSink.Load())(line)
		}, funcr.Options{}).GetSink())
		klog.SetLogger(logger)
		ctrllog.SetLogger(logger)
	})
}
