package bench

import (
	"fmt"
	"strings"
)

// mix is the order of kinds after the Namespace, repeated. Deployments are an
// eighth, ConfigMaps three, as in the repositories that people show.
var mix = []struct {
	kind     string
	manifest func(name, app string, j int, o Options, tag string) string
}{
	{"Deployment", deployment},
	{"ConfigMap", configMap},
	{"ServiceAccount", serviceAccount},
	{"Service", service},
	{"ConfigMap", configMap},
	{"Role", role},
	{"RoleBinding", roleBinding},
	{"ConfigMap", configMap},
}

// object is the j-th object of the i-th Kustomization. The tag is that of a
// Deployment's image.
func object(i, j int, o Options, tag string) manifest {
	app := name(i)
	if j == 0 {
		return manifest{"namespace.yaml", "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: " + app + "\n"}
	}
	m := mix[(j-1)%len(mix)]
	name := fmt.Sprintf("%s-%04d", strings.ToLower(m.kind), j)
	return manifest{name + ".yaml", m.manifest(name, app, j, o, tag)}
}

// head is what all manifests in a namespace begin with.
func head(apiVersion, kind, name, app string) string {
	return fmt.Sprintf(`apiVersion: %s
kind: %s
metadata:
  name: %s
  namespace: %s
  labels:
    app.kubernetes.io/name: %s
    app.kubernetes.io/part-of: bench
`, apiVersion, kind, name, app, name)
}

func configMap(name, app string, j int, _ Options, _ string) string {
	return head("v1", "ConfigMap", name, app) + fmt.Sprintf(`data:
  number: "%d"
  url: https://%s.example.org/
  settings.yaml: |
    log:
      level: info
      format: json
    listen: :8080
    cache:
      size: 64MiB
      ttl: 5m
`, j, app)
}

func serviceAccount(name, app string, _ int, _ Options, _ string) string {
	return head("v1", "ServiceAccount", name, app) + "automountServiceAccountToken: false\n"
}

func service(name, app string, _ int, _ Options, _ string) string {
	return head("v1", "Service", name, app) + fmt.Sprintf(`spec:
  selector:
    app.kubernetes.io/name: %s
  ports:
    - name: http
      port: 80
      targetPort: http
`, name)
}

func role(name, app string, _ int, _ Options, _ string) string {
	return head("rbac.authorization.k8s.io/v1", "Role", name, app) + `rules:
  - apiGroups: [""]
    resources: [configmaps]
    verbs: [get, list, watch]
`
}

// roleBinding binds the Role before it, see mix.
func roleBinding(name, app string, j int, _ Options, _ string) string {
	return head("rbac.authorization.k8s.io/v1", "RoleBinding", name, app) + fmt.Sprintf(`roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: role-%04d
subjects:
  - kind: ServiceAccount
    name: serviceaccount-%04d
    namespace: %s
`, j-1, j-4, app)
}

func deployment(name, app string, _ int, o Options, tag string) string {
	return head("apps/v1", "Deployment", name, app) + fmt.Sprintf(`spec:
  replicas: %d
  selector:
    matchLabels:
      app.kubernetes.io/name: %[2]s
  template:
    metadata:
      labels:
        app.kubernetes.io/name: %[2]s
    spec:
      containers:
        - name: app
          image: ghcr.io/example/%[2]s:%[3]s
          args: [serve, --listen=:8080]
          env:
            - name: LOG_LEVEL
              value: info
            - name: APP
              value: %[4]s
          ports:
            - name: http
              containerPort: 8080
          readinessProbe:
            httpGet:
              path: /healthz
              port: http
          resources:
            requests:
              cpu: 1m
              memory: 1Mi
            limits:
              memory: 64Mi
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
`, o.Replicas, name, tag, app)
}
