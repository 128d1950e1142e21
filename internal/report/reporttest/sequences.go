// Package reporttest holds sample sequences of events, on which the golden
// tests of all formats are built. Every sequence keeps the contract of
// package event and is the same each time. It is for tests only.
package reporttest

import (
	"fmt"
	"time"

	"github.com/sluicerun/sluice/internal/event"
)

// Start is the time of the first event of every sequence.
var Start = time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)

// Commit and Previous are the commits of the sequences.
const (
	Commit   = "4f2c1d9a7be0f3c5d6e8a9b0c1d2e3f405162738"
	Previous = "91bb0e2c3d4e5f60718293a4b5c6d7e8f9001122"
)

// Sample is a named sequence.
type Sample struct {
	Name   string
	Events []event.Event
}

// Samples returns all sequences in a fixed order.
func Samples() []Sample {
	return []Sample{
		{"changes", Changes()},
		{"no-changes", NoChanges()},
		{"image-pull", ImagePull()},
		{"invalid", Invalid()},
		{"refused", Refused()},
		{"cancelled", Cancelled()},
		{"prune-kept", PruneKept()},
		{"hundred", Hundred()},
		{"plan", Plan()},
		{"hostile", Hostile()},
	}
}

// sequence builds a sequence; each event comes a while after the one before.
type sequence struct {
	now    time.Time
	events []event.Event
	turns  []event.Turn // of a plan
}

func (s *sequence) after(d time.Duration) event.At {
	s.now = s.now.Add(d)
	return event.At{Time: s.now}
}

func (s *sequence) add(e event.Event) { s.events = append(s.events, e) }

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// begin opens a run and its source.
func begin(command string) *sequence {
	s := &sequence{now: Start}
	s.add(event.RunStarted{At: s.after(0), Command: command, Version: "v0.1.0", Repo: "https://git.example.com/team/fleet.git",
		Path: "clusters/production", RunURL: "https://ci.example.com/runs/17", Actor: "ada"})
	s.add(event.SourceOpened{At: s.after(ms(300)), URL: "https://git.example.com/team/fleet", Revision: "main@sha1:" + Commit, Commit: Commit,
		Subject: "grade-api v1.5.2", Author: "Ada <ada@example.com>", Authored: Start.Add(-time.Hour), Path: "clusters/production"})
	return s
}

func (s *sequence) found(id, parent string, objects, line int, dependsOn ...string) {
	name := id[len("flux-system/"):]
	n := event.Node{ID: id, Parent: parent, DependsOn: dependsOn, Path: name, Revision: "main@sha1:" + Commit, Objects: objects}
	if line > 0 {
		n.File, n.Line = "clusters/production/"+name+".yaml", line
	}
	s.add(event.NodeFound{At: s.after(ms(1)), Node: n})
}

func (s *sequence) cluster(relation string) {
	e := event.ClusterReached{At: s.after(ms(40)), Context: "prod-eu", Server: "https://10.0.0.1:6443", ServerVersion: "v1.37.0",
		Root: "flux-system/flux-system"}
	if relation != "" {
		e.Previous, e.Relation, e.Ahead = "main@sha1:"+Previous, relation, 3
	}
	if relation == "diverged" {
		e.Behind = 2
	}
	if relation == "same" {
		e.Previous, e.Ahead = "main@sha1:"+Commit, 0
	}
	s.add(e)
}

func (s *sequence) start(id string) {
	s.add(event.NodeStarted{At: s.after(ms(5)), Node: id, Attempt: 1, Attempts: 3})
}

func (s *sequence) apply(id string, action event.Action, objects ...string) {
	for _, o := range objects {
		s.add(event.ObjectApplied{At: s.after(ms(10)), Change: change(id, o, action)})
	}
}

func change(id, object string, action event.Action) event.Change {
	c := event.Change{Node: id, Object: object, APIVersion: "apps/v1", File: id[len("flux-system/"):] + "/all.yaml", Action: action}
	if object == "Deployment/grade-api/grade-api" && action != event.Unchanged {
		c.Images = []event.Image{{Container: "app", Old: "ghcr.io/your-org/grade-api:v1.5.1", New: "ghcr.io/your-org/grade-api:v1.5.2"}}
	}
	return c
}

func (s *sequence) end(id string, result event.Result, duration, waited time.Duration, failures ...event.Failure) {
	s.add(event.NodeFinished{At: s.after(ms(5)), Node: id, Result: result, Duration: duration, Waited: waited, Failures: failures})
}

func (s *sequence) blocked(id, by string) {
	s.add(event.NodeFinished{At: s.after(0), Node: id, Result: event.NotRun, BlockedBy: by})
}

func (s *sequence) finish(v event.Verdict, code int, next string, failures ...event.Failure) {
	at := s.after(ms(20))
	s.add(event.RunFinished{At: at, Verdict: v, ExitCode: code, Failures: failures, Pruned: v == event.Live, Saved: true,
		Next: next, Duration: at.Time.Sub(Start)})
}

const (
	root = "flux-system/flux-system"
	crds = "flux-system/infra-crds"
	ctrl = "flux-system/infra-controllers"
	apps = "flux-system/apps"
	web  = "flux-system/web"
	jobs = "flux-system/jobs"
)

// fleet announces six Kustomizations.
func (s *sequence) fleet() {
	s.found(root, "", 2, 0)
	s.found(crds, root, 3, 1)
	s.found(ctrl, root, 4, 1, crds)
	s.found(apps, root, 5, 1, ctrl)
	s.found(web, root, 2, 1, apps)
	s.found(jobs, root, 1, 9, apps, crds)
}

// unchanged runs a Kustomization that has nothing to do.
func (s *sequence) unchanged(id string, objects ...string) {
	s.start(id)
	s.apply(id, event.Unchanged, objects...)
	s.add(event.NodeApplied{At: s.after(ms(1)), Node: id})
	s.end(id, event.Ready, ms(40), 0)
}

func (s *sequence) infra() {
	s.unchanged(root, "Namespace/grade-api", "Namespace/platform")
	s.unchanged(crds, "CustomResourceDefinition/gradebooks.grading.example.com")
	s.unchanged(ctrl, "Deployment/platform/gradebook-controller", "IngressClass/nginx")
}

func (s *sequence) tail() {
	s.unchanged(web, "Deployment/grade-api/grade-web", "Service/grade-api/grade-web")
	s.unchanged(jobs, "Job/grade-api/report")
}

func (s *sequence) planned(unchanged int, changes ...event.Change) {
	s.add(event.Planned{At: s.after(ms(850)), Changes: changes, Unchanged: unchanged, Turns: s.turns})
}

// Changes is a run that changes three objects, waits for a roll-out and
// prunes one object, with a few notices on the way.
func Changes() []event.Event {
	s := begin("run")
	s.fleet()
	s.cluster("ahead")
	for range 2 {
		s.add(event.Notice{At: s.after(0), Level: event.Warning, Code: "extension-field", Node: web, File: "clusters/production/web.yaml", Line: 14,
			Text: "spec.configMapGenerator is an extension of sluice; Flux refuses it", Hint: "move the generator into a kustomization.yaml"})
	}
	s.add(event.Notice{At: s.after(0), Level: event.Info, Code: "flux-components", Text: "3 objects of Flux itself are left out"})
	s.planned(8, change(apps, "ConfigMap/flux-system/cluster-vars", event.Configure), change(apps, "Deployment/grade-api/grade-api", event.Configure),
		change(apps, "Job/grade-api/migrate", event.Recreate), change(apps, "Service/grade-api/legacy", event.Delete))
	s.infra()
	s.start(apps)
	s.apply(apps, event.Configured, "ConfigMap/flux-system/cluster-vars", "Deployment/grade-api/grade-api")
	recreated := change(apps, "Job/grade-api/migrate", event.Recreated)
	recreated.Reason = "spec.template is immutable"
	s.add(event.ObjectApplied{At: s.after(ms(10)), Change: recreated})
	s.apply(apps, event.Unchanged, "Service/grade-api/grade-api")
	s.add(event.NodeApplied{At: s.after(ms(1)), Node: apps, Waiting: 2, Timeout: 5 * time.Minute})
	for _, updated := range []string{"0 of 3 pods updated", "1 of 3 pods updated", "2 of 3 pods updated"} {
		s.add(event.ObjectHealth{At: s.after(ms(4500)), Node: apps, Object: "Deployment/grade-api/grade-api", Status: "InProgress", Message: updated})
		s.add(event.ObjectHealth{At: s.after(ms(100)), Node: apps, Object: "Job/grade-api/migrate", Status: "InProgress", Message: "Job in progress"})
	}
	s.add(event.ObjectHealth{At: s.after(ms(10)), Node: apps, Object: "Job/grade-api/migrate", Status: "Current", Message: "Job Completed"})
	s.add(event.ObjectHealth{At: s.after(ms(390)), Node: apps, Object: "Deployment/grade-api/grade-api", Status: "Current", Message: "3 of 3 pods ready"})
	s.end(apps, event.Ready, ms(14250), ms(14200))
	s.tail()
	s.add(event.PruneStarted{At: s.after(ms(5)), Objects: 1})
	s.add(event.ObjectPruned{At: s.after(ms(90)), Change: change(apps, "Service/grade-api/legacy", event.Deleted)})
	s.add(event.PruneFinished{At: s.after(ms(5)), Duration: ms(100)})
	s.finish(event.Live, 0, "")
	return s.events
}

// NoChanges is a run of a commit that is live already.
func NoChanges() []event.Event {
	s := begin("run")
	s.fleet()
	s.cluster("same")
	s.planned(9)
	s.infra()
	s.unchanged(apps, "Deployment/grade-api/grade-api")
	s.tail()
	s.finish(event.Live, 0, "")
	return s.events
}

// ImagePull is a run in which a Deployment's image does not exist: one retry,
// two dependents not run, a sibling that fails as well, nothing pruned.
func ImagePull() []event.Event {
	s := begin("run")
	s.fleet()
	s.found("flux-system/payments", root, 1, 1)
	s.cluster("ahead")
	s.planned(7, change(apps, "Deployment/grade-api/grade-api", event.Configure))
	s.infra()
	s.start("flux-system/payments")
	s.end("flux-system/payments", event.Failed, ms(80), 0, event.Failure{Phase: "apply", Reason: "Forbidden",
		Object: "ConfigMap/payments/settings", File: "payments/settings.yaml", Line: 3,
		Text: `user "system:serviceaccount:payments:deployer" cannot patch resource "configmaps" in namespace "payments"`,
		Hint: "give the service account payments/deployer the verb patch on configmaps"})
	s.start(apps)
	s.apply(apps, event.Unchanged, "ConfigMap/flux-system/cluster-vars")
	s.apply(apps, event.Configured, "Deployment/grade-api/grade-api")
	s.add(event.NodeApplied{At: s.after(ms(1)), Node: apps, Waiting: 1, Timeout: 5 * time.Minute})
	s.add(event.ObjectHealth{At: s.after(ms(200)), Node: apps, Object: "Deployment/grade-api/grade-api", Status: "InProgress", Message: "0 of 3 pods updated"})
	pull := event.Failure{Phase: "health", Reason: "ImagePull", Node: apps, Object: "Deployment/grade-api/grade-api", Container: "app",
		File: "clusters/production/apps.yaml", Line: 1,
		Text:     "Deployment/grade-api/grade-api cannot pull ghcr.io/your-org/grade-api:v1.5.2 (not found), after 60s of ImagePullBackOff",
		Hint:     "push a tag that exists",
		Events:   []event.WarningEvent{{Count: 4, Reason: "Failed", Message: "manifest for ghcr.io/your-org/grade-api:v1.5.2 not found"}, {Count: 1, Reason: "BackOff", Message: "Back-off pulling image"}},
		LogsNote: "none, the container never started; the old pods still serve"}
	s.add(event.NodeRetrying{At: s.after(60 * time.Second), Node: apps, Attempt: 1, After: 10 * time.Second, Failure: pull})
	s.add(event.NodeStarted{At: s.after(10 * time.Second), Node: apps, Attempt: 2, Attempts: 2})
	s.apply(apps, event.Unchanged, "ConfigMap/flux-system/cluster-vars", "Deployment/grade-api/grade-api")
	s.add(event.NodeApplied{At: s.after(ms(1)), Node: apps, Waiting: 1, Timeout: 5 * time.Minute})
	s.add(event.ObjectHealth{At: s.after(60 * time.Second), Node: apps, Object: "Deployment/grade-api/grade-api", Status: "Failed", Message: "ImagePullBackOff"})
	s.end(apps, event.Unhealthy, 130*time.Second, 120*time.Second, pull)
	s.blocked(web, apps)
	s.blocked(jobs, apps)
	s.finish(event.VerdictFailed, 1, "go back: sluice run --revision 91bb0e2 --allow-rollback")
	return s.events
}

// Invalid is a run that finds several problems before it writes anything.
func Invalid() []event.Event {
	s := begin("run")
	s.fleet()
	s.finish(event.VerdictInvalid, 3, "",
		event.Failure{Phase: "build", Reason: "BuildFailed", Node: apps, File: "apps/deployment.yaml", Line: 12,
			Text: "yaml: line 12: mapping values are not allowed in this context"},
		event.Failure{Phase: "graph", Reason: "DependencyCycle", File: "clusters/production/web.yaml", Line: 1,
			Text: "dependency cycle: flux-system/jobs → flux-system/web → flux-system/jobs", Hint: "remove one of these dependsOn entries"},
		event.Failure{Phase: "substitute", Reason: "UnknownVariable", Node: web, Object: "Deployment/grade-api/grade-web", File: "web/deployment.yaml", Line: 7,
			Text: `variable "image_tag" is not set`, Hint: "pass --var image_tag=VALUE, or add it to postBuild.substitute"})
	return s.events
}

// Refused is a run that finds the lock held.
func Refused() []event.Event {
	s := begin("run")
	s.fleet()
	s.cluster("ahead")
	s.finish(event.VerdictRefused, 4, "", event.Failure{Phase: "lock", Reason: "LockHeld",
		Text: "another run holds the lock of flux-system/flux-system since 2m10s: https://ci.example.com/runs/16 (bob, 91bb0e2)",
		Hint: "wait for it, or give this run --lock-wait 10m"})
	return s.events
}

// Cancelled is a run that a signal stopped in the middle.
func Cancelled() []event.Event {
	s := begin("run")
	s.fleet()
	s.cluster("ahead")
	s.planned(8, change(apps, "Deployment/grade-api/grade-api", event.Configure))
	s.infra()
	s.start(apps)
	s.apply(apps, event.Configured, "ConfigMap/flux-system/cluster-vars", "Deployment/grade-api/grade-api")
	s.end(apps, event.Cancelled, ms(900), 0)
	s.end(web, event.Cancelled, 0, 0)
	s.end(jobs, event.Cancelled, 0, 0)
	s.finish(event.VerdictCancelled, 143, "run it again: sluice run --path clusters/production")
	return s.events
}

// PruneKept is a run that deletes two objects, one of a Kustomization that
// left Git, keeps two and fails to delete one.
func PruneKept() []event.Event {
	s := begin("run")
	s.fleet()
	s.cluster("ahead")
	s.planned(9, change(apps, "Service/grade-api/legacy", event.Delete))
	s.infra()
	s.unchanged(apps, "Deployment/grade-api/grade-api")
	s.tail()
	s.add(event.PruneStarted{At: s.after(ms(5)), Objects: 5})
	s.add(event.ObjectPruned{At: s.after(ms(90)), Change: change("flux-system/gone", "Deployment/old/worker", event.Deleted)})
	s.add(event.ObjectPruned{At: s.after(ms(10)), Change: change(apps, "Service/grade-api/legacy", event.Deleted)})
	for _, kept := range []event.Change{
		{Node: apps, Object: "PersistentVolumeClaim/grade-api/data", Action: event.Kept, Reason: "marked kustomize.toolkit.fluxcd.io/prune: disabled"},
		{Node: "flux-system/gone", Object: "ConfigMap/old/settings", Action: event.Kept, Reason: "it belongs to flux-system/web now"},
	} {
		s.add(event.ObjectPruned{At: s.after(ms(1)), Change: kept})
	}
	s.add(event.PruneFinished{At: s.after(ms(30000)), Duration: ms(30100), Failures: []event.Failure{{Phase: "prune", Reason: "Timeout", Node: apps,
		Object: "Namespace/legacy", Text: "Namespace/legacy is still there after 30s: finalizer example.com/hold on Widget/legacy/one", Hint: "remove the finalizer, or start its controller again"}}})
	s.finish(event.VerdictFailed, 1, "run it again once the finalizer is gone")
	return s.events
}

// Hundred is a first install of a hundred Kustomizations in ten chains, run
// side by side, with more than ten failures.
func Hundred() []event.Event {
	s := begin("run")
	s.found(root, "", 1, 0)
	id := func(chain, link int) string { return fmt.Sprintf("flux-system/team-%d-%02d", chain, link) }
	for chain := range 10 {
		for link := range 10 {
			var dependsOn []string
			if link > 0 {
				dependsOn = []string{id(chain, link-1)}
			}
			s.found(id(chain, link), root, 20, 1, dependsOn...)
		}
	}
	s.cluster("")
	s.planned(0)
	s.unchanged(root, "Namespace/teams")
	for link := range 10 {
		for chain := range 10 {
			switch {
			case chain == 3 && link > 4:
				s.blocked(id(chain, link), id(chain, 4))
				continue
			case chain == 3 && link == 4 || chain > 5 && link > 6:
				s.start(id(chain, link))
				s.end(id(chain, link), event.Failed, ms(30), 0, event.Failure{Phase: "apply", Reason: "Forbidden",
					Object: fmt.Sprintf("ConfigMap/team-%d/settings", chain), Text: "exceeded quota: objects", File: "clusters/production/teams.yaml", Line: 10*chain + link + 1})
				continue
			}
			s.start(id(chain, link))
			for o := range 20 {
				s.apply(id(chain, link), event.Created, fmt.Sprintf("ConfigMap/team-%d/settings-%02d-%02d", chain, link, o))
			}
			s.add(event.NodeApplied{At: s.after(ms(1)), Node: id(chain, link)})
			s.end(id(chain, link), event.Ready, ms(210), 0)
		}
	}
	s.finish(event.VerdictFailed, 1, "raise the quota and run it again")
	return s.events
}

// Plan is a plan with all kinds of changes.
func Plan() []event.Event {
	s := begin("plan")
	s.fleet()
	s.cluster("diverged")
	later := change(apps, "GradeBook/grade-api/algebra", event.Later)
	later.Reason = "its kind comes with flux-system/infra-crds"
	configure := change(apps, "Deployment/grade-api/grade-api", event.Configure)
	configure.Fields = []event.Field{
		{Path: "metadata.labels.tier", New: "web"},
		{Path: "spec.replicas", Old: "1", New: "3"},
		{Path: "spec.template.spec.containers[app].image", Old: configure.Images[0].Old, New: configure.Images[0].New},
		{Path: "spec.template.spec.hostNetwork", Old: "true"},
	}
	secret := change(web, "Secret/grade-web/session", event.Configure)
	secret.Fields = []event.Field{{Path: "data.key", Old: "*** (before)", New: "*** (after)"}}
	kept := change(web, "PersistentVolumeClaim/grade-web/cache", event.Kept)
	kept.Reason = "it has kustomize.toolkit.fluxcd.io/prune: disabled"
	s.add(event.NodeFound{At: s.after(ms(1)), Node: event.Node{ID: "flux-system/reports", Parent: root, Path: "reports",
		Deferred: "waits for ConfigMap/flux-system/reports, which something earlier in the run may create"}})
	s.add(event.NodeFound{At: s.after(ms(1)), Node: event.Node{ID: "flux-system/old", Parent: root, Path: "old", Suspended: true}})
	turn := func(id string, unchanged int, waitsFor ...string) event.Turn {
		t := event.Turn{Node: id, Unchanged: unchanged, WaitsFor: waitsFor}
		if len(waitsFor) > 0 {
			t.Timeout = 5 * time.Minute
		}
		return t
	}
	s.turns = []event.Turn{turn(root, 2), turn("flux-system/old", 0), turn("flux-system/reports", 0), turn(crds, 2), turn(ctrl, 2),
		turn(apps, 1, "Deployment/grade-api/grade-api"), turn(web, 1), turn(jobs, 0)}
	s.planned(8, change(crds, "CustomResourceDefinition/gradebooks.grading.example.com", event.Create),
		configure, later, secret, change(apps, "Service/grade-api/legacy", event.Delete), kept)
	for _, t := range s.turns {
		result := event.ResultPlanned
		if t.Node == "flux-system/old" {
			result = event.Suspended
		}
		s.end(t.Node, result, 0, 0)
	}
	s.finish(event.VerdictPlanned, 0, "")
	return s.events
}

// Hostile is a failure whose foreign text tries to steer whatever shows it:
// workflow commands, terminal escapes, Markdown, HTML, table cells.
func Hostile() []event.Event {
	s := begin("run")
	s.fleet()
	s.cluster("ahead")
	s.planned(8, change(apps, "Deployment/grade-api/grade-api", event.Configure))
	s.add(event.Notice{At: s.after(0), Level: event.Warning, Code: "hostile", Text: "::set-output name=x::y\n::error::injected | <b>bold</b> `code`", Hint: "##[group]open"})
	s.infra()
	s.start(apps)
	s.apply(apps, event.Configured, "Deployment/grade-api/grade-api")
	s.add(event.NodeApplied{At: s.after(ms(1)), Node: apps, Waiting: 1, Timeout: time.Minute})
	s.add(event.ObjectHealth{At: s.after(ms(10)), Node: apps, Object: "Deployment/grade-api/grade-api", Status: "Failed", Message: "\r::add-mask::e\x1b[2J"})
	s.end(apps, event.Unhealthy, time.Minute, time.Minute, event.Failure{Phase: "health", Reason: "CrashLoop", Object: "Deployment/grade-api/grade-api", Container: "app",
		Text: "container app exited 1 ##[error]x\n::error file=a::b", Hint: "</details><script>alert(1)</script>",
		Events:   []event.WarningEvent{{Count: 2, Reason: "BackOff", Message: "::stop-commands::x\n```\n# heading"}},
		Logs:     []string{"::error::from the log", "   ::warning::indented", "a ##[add-mask]e", "\x1b[31mred\x1b[0m\x1b]0;title\a \u202egnp.exe", "```", "section_end:1:x\r\x1b[0K", "]]> \x00 <failure> \xff\xfe", "%0A::debug::x"},
		LogsNote: "previous instance, last 8 lines"})
	s.blocked(web, apps)
	s.blocked(jobs, apps)
	s.finish(event.VerdictUnhealthy, 5, "kubectl -n grade-api logs deploy/grade-api --previous")
	return s.events
}
