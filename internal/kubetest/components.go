//go:build unix

package kubetest

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
)

// ports of one cluster, all on 127.0.0.1.
type ports struct {
	etcd, apiserver, controllerManager, scheduler, kwok int
}

// freePorts asks the kernel for ports that nobody uses. Another process may take one before the component binds it; the
// supervisor then starts over with other ports.
func freePorts() (ports, error) {
	var p ports
	for _, port := range []*int{&p.etcd, &p.apiserver, &p.controllerManager, &p.scheduler, &p.kwok} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return ports{}, fmt.Errorf("find a free port: %w", err)
		}
		// Kept open until all are known, so that they differ.
		defer l.Close()
		*port = l.Addr().(*net.TCPAddr).Port
	}
	return p, nil
}

func local(scheme string, port int) string {
	return scheme + "://127.0.0.1:" + strconv.Itoa(port)
}

// layout names the files of a cluster's folder.
type layout struct{ dir string }

func (l layout) pki(name string) string { return filepath.Join(l.dir, "pki", name) }
func (l layout) log(name string) string { return filepath.Join(l.dir, "logs", name+".log") }
func (l layout) data() string           { return filepath.Join(l.dir, "data") }
func (l layout) kubeconfig() string     { return filepath.Join(l.dir, "kubeconfig") }
func (l layout) stages() string         { return filepath.Join(l.dir, "stages.yaml") }
func (l layout) lock() string           { return filepath.Join(l.dir, "lock") }

// The budgets of the design compare programs on this API server, so no client-side limit of a component may be what is measured.
const (
	apiQPS   = "--kube-api-qps=2000"
	apiBurst = "--kube-api-burst=4000"
)

func etcdArgs(l layout, p ports) []string {
	client, peer := local("http", p.etcd), local("http", 0)
	return []string{
		"--data-dir=" + l.data(),
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		// There is one member, so nobody ever connects here and any port will do.
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=default=" + peer,
		"--log-level=warn",
		// The data is thrown away, so nothing is lost by not waiting for the disk.
		"--unsafe-no-fsync",
		// Fewer raft entries in memory.
		"--snapshot-count=1000",
		"--snapshot-catchup-entries=500",
	}
}

func apiserverArgs(l layout, p ports) []string {
	return []string{
		"--etcd-servers=" + local("http", p.etcd),
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(p.apiserver),
		"--tls-cert-file=" + l.pki("server.crt"),
		"--tls-private-key-file=" + l.pki("server.key"),
		"--client-ca-file=" + l.pki("ca.crt"),
		"--authorization-mode=RBAC",
		"--anonymous-auth=false",
		"--service-cluster-ip-range=10.0.0.0/16",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + l.pki("service-accounts.key"),
		"--service-account-signing-key-file=" + l.pki("service-accounts.key"),
		// TaintNodesByCondition would wait for a node lifecycle controller to take the taint away, and there is no kubelet to report
		// to it. ServiceAccount would refuse pods until the namespace's default account exists, and nobody mounts its token.
		"--disable-admission-plugins=TaintNodesByCondition,ServiceAccount",
		"--allow-privileged=true",
		// A loopback address is not a valid endpoint of the Service "kubernetes".
		"--endpoint-reconciler-type=none",
		// Logs of pods come from the supervisor, see kubelet.go.
		"--kubelet-certificate-authority=" + l.pki("ca.crt"),
		"--kubelet-client-certificate=" + l.pki("admin.crt"),
		"--kubelet-client-key=" + l.pki("admin.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--enable-priority-and-fairness=false",
		"--max-requests-inflight=0",
		"--max-mutating-requests-inflight=0",
		"--profiling=false",
	}
}

func controllerManagerArgs(l layout, p ports) []string {
	return []string{
		"--kubeconfig=" + l.kubeconfig(),
		"--authentication-kubeconfig=" + l.kubeconfig(),
		"--authorization-kubeconfig=" + l.kubeconfig(),
		"--bind-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(p.controllerManager),
		"--tls-cert-file=" + l.pki("server.crt"),
		"--tls-private-key-file=" + l.pki("server.key"),
		"--leader-elect=false",
		// Nodes have no heartbeat; this controller would call them dead and evict their pods.
		"--controllers=*,-node-lifecycle-controller",
		"--root-ca-file=" + l.pki("ca.crt"),
		"--service-account-private-key-file=" + l.pki("service-accounts.key"),
		"--cluster-signing-cert-file=" + l.pki("ca.crt"),
		"--cluster-signing-key-file=" + l.pki("ca.key"),
		"--profiling=false",
		apiQPS, apiBurst,
		"--concurrent-deployment-syncs=20",
		"--concurrent-replicaset-syncs=20",
		"--concurrent-statefulset-syncs=20",
		"--concurrent-daemonset-syncs=20",
		"--concurrent-job-syncs=20",
		"--concurrent-namespace-syncs=20",
		"--concurrent-gc-syncs=20",
	}
}

func schedulerArgs(l layout, p ports) []string {
	return []string{
		"--kubeconfig=" + l.kubeconfig(),
		"--authentication-kubeconfig=" + l.kubeconfig(),
		"--authorization-kubeconfig=" + l.kubeconfig(),
		"--bind-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(p.scheduler),
		"--tls-cert-file=" + l.pki("server.crt"),
		"--tls-private-key-file=" + l.pki("server.key"),
		"--leader-elect=false",
		"--profiling=false",
		apiQPS, apiBurst,
	}
}

func kwokArgs(l layout, p ports) []string {
	return []string{
		"--kubeconfig=" + l.kubeconfig(),
		"--config=" + l.stages(),
		"--manage-all-nodes=true",
		// Nobody else plays the kubelet of these nodes, so no lease has to say who does.
		"--node-lease-duration-seconds=0",
		"--node-ip=127.0.0.1",
		"--cidr=10.244.0.0/16",
		"--server-address=127.0.0.1:" + strconv.Itoa(p.kwok),
	}
}
