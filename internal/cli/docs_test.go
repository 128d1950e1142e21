package cli

import (
	"bytes"
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

// The tests in this file hold the documentation against the program: what a
// user can look up must be all there is, and nothing that there is not.

const top = "../.."

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// quoted finds what stands in backticks.
var quoted = regexp.MustCompile("`([^`]+)`")

func quotes(text string) []string {
	var found []string
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}

// rows returns the cells of every table row of a page, the head rows and the
// lines below them included.
func rows(text string) [][]string {
	var found [][]string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || !strings.HasSuffix(line, "|") || len(line) < 2 {
			continue
		}
		var cells []string
		for _, cell := range strings.Split(line[1:len(line)-1], "|") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		found = append(found, cells)
	}
	return found
}

// commands are all commands of the program, by name.
func commands() map[string]*cli.Command {
	code := 0
	found := map[string]*cli.Command{}
	for _, c := range newApp(System{Getenv: func(string) string { return "" }, Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}}, &code).Commands {
		found[c.Name] = c
	}
	return found
}

// documented is a row of one of the tables of flags.
type documented struct {
	names     []string
	variables []string
	fallback  string
	meaning   string
}

// flagPages are the rows of all tables on the pages of the commands.
func flagPages(t *testing.T) [][]string {
	t.Helper()
	var all [][]string
	for _, name := range []string{"docs/run.md", "docs/before-you-deploy.md", "docs/status.md", "docs/destroy.md"} {
		all = append(all, rows(page(t, name))...)
	}
	return all
}

func flagRows(t *testing.T) map[string]documented {
	t.Helper()
	found := map[string]documented{}
	for _, cells := range flagPages(t) {
		if len(cells) != 4 || !strings.HasPrefix(cells[0], "`--") {
			continue
		}
		d := documented{names: quotes(cells[0]), variables: quotes(cells[1]), fallback: cells[2], meaning: cells[3]}
		name := strings.TrimPrefix(d.names[0], "--")
		if _, twice := found[name]; twice {
			t.Errorf("the pages of the commands list --%s twice", name)
		}
		found[name] = d
	}
	return found
}

// fallbackOf is a flag's default as the tables write it, empty if it has none.
func fallbackOf(t *testing.T, flag cli.Flag) string {
	switch f := flag.(type) {
	case *cli.StringFlag:
		return f.Value
	case *cli.IntFlag:
		return strconv.Itoa(f.Value)
	case *cli.BoolFlag:
		return strconv.FormatBool(f.Value)
	case *cli.DurationFlag:
		return shortDuration(f.Value)
	case *cli.StringSliceFlag:
		if f.Value == nil {
			return ""
		}
		return strings.Join(f.Value.Value(), ",")
	}
	t.Fatalf("flag %q has a type that this test does not know", flag.Names()[0])
	return ""
}

// shortDuration leaves out units that are zero: "1h", not "1h0m0s".
func shortDuration(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = strings.TrimSuffix(text, zero[1:])
		}
	}
	return text
}

// Every flag has a row in docs/run.md, or in another of flagPages if run does not
// have it. A flag that several commands have is the same for all of them.
func TestDocsListEveryFlag(t *testing.T) {
	listed := flagRows(t)
	known := map[string]bool{}
	for name, command := range commands() {
		for _, flag := range command.Flags {
			names := flag.Names()
			known[names[0]] = true
			d, ok := listed[names[0]]
			if !ok {
				t.Errorf("docs/run.md does not list --%s of %s", names[0], name)
				continue
			}
			if want := dashed(names); !slices.Equal(d.names, want) {
				t.Errorf("docs/run.md calls the flag %v, the program %v", d.names, want)
			}
			if want := flag.(cli.DocGenerationFlag).GetEnvVars(); !slices.Equal(d.variables, want) {
				t.Errorf("docs/run.md gives %v as the variable of --%s, the program reads %v", d.variables, names[0], want)
			}
			want := fallbackOf(t, flag)
			switch given := quotes(d.fallback); {
			case want != "" && d.fallback != "`"+want+"`":
				t.Errorf("docs/run.md says that the default of --%s is %s, it is %q", names[0], d.fallback, want)
			case want == "" && (d.fallback == "" || len(given) == 1 && d.fallback == "`"+given[0]+"`"):
				t.Errorf("docs/run.md gives --%s the default %q, it has none", names[0], d.fallback)
			}
			_, repeated := flag.(*cli.StringSliceFlag)
			if repeated != strings.Contains(d.meaning, "Repeatable") {
				t.Errorf("--%s: docs/run.md says Repeatable or not, and it is the other way round", names[0])
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		if !known[name] {
			t.Errorf("docs/run.md lists --%s, which does not exist", name)
		}
	}
}

// dashed writes a flag's names as one types them.
func dashed(names []string) []string {
	var out []string
	for _, name := range names {
		if len(name) == 1 {
			out = append(out, "-"+name)
		} else {
			out = append(out, "--"+name)
		}
	}
	return out
}

// pages are README.md, CONTRIBUTING.md and everything in docs.
func pages(t *testing.T) []string {
	t.Helper()
	found := []string{"README.md", "CONTRIBUTING.md"}
	err := filepath.WalkDir(filepath.Join(top, "docs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			name, _ := filepath.Rel(top, path)
			found = append(found, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var (
	mention  = regexp.MustCompile(`sluice ([a-z]+)((?: +[^ ` + "`" + `|]+)*)`)
	flagName = regexp.MustCompile(`^--?([a-z][a-z-]*)`)
)

// TestDocsUseFlagsThatExist looks at every command line in the documentation,
// and every flag in backticks.
func TestDocsUseFlagsThatExist(t *testing.T) {
	known := map[string]map[string]bool{}
	for name, command := range commands() {
		known[name] = map[string]bool{"help": true, "h": true}
		for _, flag := range command.Flags {
			for _, n := range flag.Names() {
				known[name][n] = true
			}
		}
	}
	for _, name := range append(pages(t), "action.yml") {
		for i, line := range strings.Split(page(t, name), "\n") {
			for _, m := range mention.FindAllStringSubmatch(line, -1) {
				if known[m[1]] == nil {
					continue
				}
				command, _, _ := strings.Cut(m[2], " # ")
				command, _, _ = strings.Cut(command, " | ")
				for _, word := range strings.Fields(command) {
					if f := flagName.FindStringSubmatch(word); f != nil && !known[m[1]][f[1]] {
						t.Errorf("%s:%d: sluice %s has no flag %s", name, i+1, m[1], word)
					}
				}
			}
		}
	}
	// Nor a command, as code or in a transcript.
	command := regexp.MustCompile("(?:`|\\$ |exec )sluice ([a-z]+)")
	all := commands()
	for _, name := range pages(t) {
		for i, line := range strings.Split(page(t, name), "\n") {
			for _, m := range command.FindAllStringSubmatch(line, -1) {
				if all[m[1]] == nil {
					t.Errorf("%s:%d: there is no command sluice %s", name, i+1, m[1])
				}
			}
		}
	}
	// A variable SLUICE_… that nothing reads would be set in vain.
	read := variablesRead(t)
	variable := regexp.MustCompile(`\bSLUICE_[A-Z_]*[A-Z]\b`)
	for _, name := range append(pages(t), "action.yml") {
		for i, line := range strings.Split(page(t, name), "\n") {
			for _, v := range variable.FindAllString(line, -1) {
				if !read[v] {
					t.Errorf("%s:%d: nothing reads the variable %s", name, i+1, v)
				}
			}
		}
	}
}

// sources parses the Go files of a package of internal, tests left out.
func sources(t *testing.T, name string) []*ast.File {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(top, "internal", name, "*.go"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("internal/%s: %v, %d files", name, err, len(paths))
	}
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// literal is the value of a string literal.
func literal(e ast.Expr) (string, bool) {
	basic, ok := e.(*ast.BasicLit)
	if !ok || basic.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(basic.Value)
	return text, err == nil
}

// variablesRead are the environment variables that this package looks up, those
// of the flags included.
func variablesRead(t *testing.T) map[string]bool {
	t.Helper()
	read := map[string]bool{}
	for _, command := range commands() {
		for _, flag := range command.Flags {
			for _, v := range flag.(cli.DocGenerationFlag).GetEnvVars() {
				read[v] = true
			}
		}
	}
	for _, file := range sources(t, "cli") {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			called := ""
			switch f := call.Fun.(type) {
			case *ast.Ident:
				called = f.Name
			case *ast.SelectorExpr:
				called = f.Sel.Name
			}
			switch called {
			case "getenv", "Getenv", "LookupEnv":
				if name, ok := literal(call.Args[0]); ok {
					read[name] = true
				} else if id, ok := call.Args[0].(*ast.Ident); !ok || id.Name != "name" {
					t.Errorf("a variable is looked up whose name this test cannot see")
				}
			case "readNamed":
				if name, ok := literal(call.Args[1]); ok {
					read[name] = true
				} else {
					t.Errorf("readNamed is called with a name that this test cannot see")
				}
			}
			return true
		})
	}
	return read
}

func TestDocsListEveryVariable(t *testing.T) {
	read := variablesRead(t)
	listed := map[string]bool{}
	name := regexp.MustCompile(`^[A-Z][A-Z0-9_]+$`)
	for _, cells := range flagPages(t) {
		for _, cell := range cells[:min(2, len(cells))] {
			for _, q := range quotes(cell) {
				if name.MatchString(q) {
					listed[q] = true
				}
			}
		}
	}
	for _, v := range slices.Sorted(maps.Keys(read)) {
		if !listed[v] {
			t.Errorf("docs/run.md does not list the variable %s", v)
		}
	}
	for _, v := range slices.Sorted(maps.Keys(listed)) {
		if !read[v] {
			t.Errorf("docs/run.md lists the variable %s, which nothing reads", v)
		}
	}
}

// help is what a command prints for --help.
func help(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	code := Main(context.Background(), append(append([]string{"sluice"}, args...), "--help"),
		System{Getenv: func(string) string { return "" }, Stdout: &out, Stderr: &errs})
	if code != 0 || errs.Len() > 0 {
		t.Fatalf("sluice %s --help: exit code %d, %s", strings.Join(args, " "), code, &errs)
	}
	return out.String()
}

// TestDocsListEveryExitCode compares the help text with each page that has a
// table of exit codes.
func TestDocsListEveryExitCode(t *testing.T) {
	_, list, ok := strings.Cut(help(t, "run"), "Exit codes:\n")
	if !ok {
		t.Fatal("the help text has no list of exit codes")
	}
	list, _, _ = strings.Cut(list, "\n\n")
	line := regexp.MustCompile(`^\s+((?:\d+, )*\d+)\s+(\S.*)$`)
	var want []string
	for _, l := range strings.Split(list, "\n") {
		m := line.FindStringSubmatch(l)
		if m == nil {
			t.Fatalf("cannot read %q in the list of exit codes", l)
		}
		want = append(want, m[1])
	}
	codes := regexp.MustCompile(`^(\d+, )*\d+$`)
	for _, name := range pages(t) {
		var got []string
		in := false
		for _, cells := range rows(page(t, name)) {
			switch {
			case len(cells) > 1 && cells[0] == "Code" && cells[1] == "Meaning" && len(got) == 0:
				in = true
			case in && codes.MatchString(cells[0]):
				got = append(got, cells[0])
			case in && !strings.HasPrefix(cells[0], "-"):
				in = false
			}
		}
		required := name == "README.md" || name == "docs/run.md"
		if (required || len(got) > 0) && !slices.Equal(got, want) {
			t.Errorf("%s lists the exit codes %q, sluice run --help %q", name, got, want)
		}
	}
}

// TestDocsQuoteTheHelp holds each help text that a page quotes against the real
// one.
func TestDocsQuoteTheHelp(t *testing.T) {
	block := regexp.MustCompile("(?ms)^```console\n\\$ (sluice[a-z ]*) --help\n(.*?)^```")
	for _, name := range pages(t) {
		for _, m := range block.FindAllStringSubmatch(page(t, name), -1) {
			if real := help(t, strings.Fields(m[1])[1:]...); strings.TrimSpace(real) != strings.TrimSpace(m[2]) {
				t.Errorf("%s quotes a help text of %s that is not the real one, which is:\n%s", name, m[1], real)
			}
		}
	}
}

// explained are the names in the first column of the tables of
// docs/troubleshooting.md whose head is the given word.
func explained(t *testing.T, head string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	table := ""
	for _, cells := range rows(page(t, "docs/troubleshooting.md")) {
		names := quotes(cells[0])
		if len(names) == 0 {
			if !strings.HasPrefix(cells[0], "-") {
				table = cells[0]
			}
			continue
		}
		if table != head {
			continue
		}
		if len(cells) != 3 || cells[1] == "" || cells[2] == "" {
			t.Errorf("docs/troubleshooting.md: the row of %s does not say what it means and what to do", cells[0])
		}
		for _, name := range names {
			if found[name] {
				t.Errorf("docs/troubleshooting.md explains %s twice", name)
			}
			found[name] = true
		}
	}
	return found
}

// sameNames compares what is explained with what there is; the values of the
// latter say where it comes from.
func sameNames(t *testing.T, listed map[string]bool, emitted map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(emitted)) {
		if !listed[name] {
			t.Errorf("docs/troubleshooting.md does not explain %s (%s)", name, emitted[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		if emitted[name] == "" {
			t.Errorf("docs/troubleshooting.md explains %s, which nothing emits", name)
		}
	}
}

// TestDocsListEveryReason compares the codes that a failure can have with those
// that docs/troubleshooting.md explains.
func TestDocsListEveryReason(t *testing.T) {
	sameNames(t, explained(t, "Code"), reasons(t))
}

// TestDocsListEveryNotice does the same for warnings and notes.
func TestDocsListEveryNotice(t *testing.T) {
	emitted := map[string]string{}
	for _, name := range []string{"run", "source", "discover", "build", "substitute", "plan", "apply", "health", "inventory", "prune"} {
		for _, file := range sources(t, name) {
			ast.Inspect(file, func(n ast.Node) bool {
				kv, ok := n.(*ast.KeyValueExpr)
				if !ok {
					return true
				}
				if key, ok := kv.Key.(*ast.Ident); !ok || key.Name != "Code" {
					return true
				}
				switch v := kv.Value.(type) {
				case *ast.BasicLit:
					code, _ := literal(v)
					emitted[code] = name
				case *ast.SelectorExpr: // handed on from a stage
				case *ast.BinaryExpr: // the family source-…, which the page explains as one
					if prefix, ok := literal(v.X); !ok || prefix != "source-" {
						t.Errorf("%s: a notice with a code that this test cannot see", name)
					}
				default:
					t.Errorf("%s: a notice with a code that this test cannot see", name)
				}
				return true
			})
		}
	}
	sameNames(t, explained(t, "Notice"), emitted)
}

// reasons finds every code that a failure can have, with the place where it comes
// from. It reads the source: codes are literals there, in one of a few forms.
// An expression in none of them fails the test, so that none is missed.
func reasons(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	add := func(code, from string) {
		if code != "" {
			found[code] = from
		}
	}
	files := sources(t, "run")
	// Tables from a stage's own word for a problem to a code.
	tables := map[string]bool{}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 || !strings.HasSuffix(spec.Names[0].Name, "Reason") && !strings.HasSuffix(spec.Names[0].Name, "Reasons") {
				return true
			}
			if table, ok := spec.Values[0].(*ast.CompositeLit); ok {
				tables[spec.Names[0].Name] = true
				for _, e := range table.Elts {
					if code, ok := literal(e.(*ast.KeyValueExpr).Value); ok {
						add(code, "run."+spec.Names[0].Name)
					} else {
						t.Errorf("run.%s holds a code that this test cannot see", spec.Names[0].Name)
					}
				}
			}
			return true
		})
	}
	for _, file := range files {
		elements := map[ast.Node]bool{} // of lists of failures: their type is not repeated
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				if list, ok := n.Type.(*ast.ArrayType); ok && isFailure(list.Elt) {
					for _, e := range n.Elts {
						elements[e] = true
					}
				}
				if !isFailure(n.Type) && !elements[n] {
					return true
				}
				given := false
				for _, e := range n.Elts {
					if kv, ok := e.(*ast.KeyValueExpr); ok && kv.Key.(*ast.Ident).Name == "Reason" {
						given = true
						codeOf(t, file, kv.Value, tables, add)
					}
				}
				if !given && len(n.Elts) > 0 {
					t.Errorf("run: a failure without a code")
				}
			case *ast.AssignStmt:
				for i, left := range n.Lhs {
					if s, ok := left.(*ast.SelectorExpr); ok && s.Sel.Name == "Reason" {
						codeOf(t, file, n.Rhs[min(i, len(n.Rhs)-1)], tables, add)
					}
				}
			}
			return true
		})
	}
	// Errors of any stage may bring a code of their own by a method.
	err := filepath.WalkDir(filepath.Join(top, "internal"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv == nil || f.Name.Name != "Reason" {
				continue
			}
			ast.Inspect(f.Body, func(n ast.Node) bool {
				if r, ok := n.(*ast.ReturnStmt); ok {
					if code, ok := literal(r.Results[0]); ok {
						add(code, path)
					} else {
						t.Errorf("%s: Reason returns a code that this test cannot see", path)
					}
				}
				return true
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for code := range diagnoses(t) {
		add(code, "health")
	}
	return found
}

func isFailure(e ast.Expr) bool {
	if s, ok := e.(*ast.SelectorExpr); ok {
		x, ok := s.X.(*ast.Ident)
		return ok && x.Name == "event" && s.Sel.Name == "Failure"
	}
	return false
}

// codeOf takes a code from an expression.
func codeOf(t *testing.T, file *ast.File, e ast.Expr, tables map[string]bool, add func(code, from string)) {
	t.Helper()
	if code, ok := literal(e); ok {
		add(code, "run")
		return
	}
	switch e := e.(type) {
	case *ast.IndexExpr: // out of a table
		if table, ok := e.X.(*ast.Ident); ok && tables[table.Name] {
			return
		}
	case *ast.CallExpr: // what an error brings: see the methods
		if s, ok := e.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Reason" {
			return
		}
	case *ast.SelectorExpr: // a diagnosis, a Kubernetes event, or another failure
		if e.Sel.Name == "Reason" {
			return
		}
	case *ast.Ident: // a parameter of a helper: what the helper is called with
		if taken := callsWith(t, file, e.Name, add); taken {
			return
		}
	}
	t.Errorf("run: a code in a form that this test cannot see: %s", fmt.Sprintf("%T", e))
}

// callsWith takes the codes from the calls of the local helper that has a
// parameter of the name. The code is its first argument.
func callsWith(t *testing.T, file *ast.File, parameter string, add func(code, from string)) bool {
	helper := ""
	ast.Inspect(file, func(n ast.Node) bool {
		a, ok := n.(*ast.AssignStmt)
		if !ok || len(a.Rhs) != 1 {
			return true
		}
		if f, ok := a.Rhs[0].(*ast.FuncLit); ok && len(f.Type.Params.List) > 0 && f.Type.Params.List[0].Names[0].Name == parameter {
			helper = a.Lhs[0].(*ast.Ident).Name
		}
		return true
	})
	if helper == "" {
		return false
	}
	seen := false
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if f, ok := call.Fun.(*ast.Ident); !ok || f.Name != helper {
			return true
		}
		code, ok := literal(call.Args[0])
		if !ok {
			t.Errorf("run: %s is called with a code that this test cannot see", helper)
		}
		add(code, "run."+helper)
		seen = true
		return true
	})
	return seen
}

// diagnoses are the codes of internal/health: the constants of the block that
// says so.
func diagnoses(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, file := range sources(t, "health") {
		for _, decl := range file.Decls {
			block, ok := decl.(*ast.GenDecl)
			if !ok || block.Tok != token.CONST || !strings.Contains(block.Doc.Text(), "stable codes") {
				continue
			}
			for _, spec := range block.Specs {
				code, ok := literal(spec.(*ast.ValueSpec).Values[0])
				if !ok {
					t.Errorf("health: a code that this test cannot see")
				}
				found[code] = true
			}
		}
	}
	if len(found) == 0 {
		t.Fatal("no codes found in internal/health")
	}
	return found
}

var (
	link    = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	fence   = regexp.MustCompile("(?ms)^ *```.*?^ *```")
)

// anchors are the names of a page's headings, as GitHub and GitLab make them.
func anchors(text string) map[string]bool {
	drop := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	found := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		name := link.ReplaceAllString(m[1], "$1")
		name = strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(strings.TrimSpace(name)), ""), " ", "-")
		found[name] = true
	}
	return found
}

func TestDocsLinksLeadSomewhere(t *testing.T) {
	for _, name := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(page(t, name), ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target, anchor, hasAnchor := strings.Cut(m[1], "#")
			to := name
			if target != "" {
				to = filepath.Join(filepath.Dir(name), target)
			}
			info, err := os.Stat(filepath.Join(top, to))
			if err != nil {
				t.Errorf("%s: the link %s leads nowhere", name, m[1])
				continue
			}
			if hasAnchor && (info.IsDir() || !anchors(page(t, to))[anchor]) {
				t.Errorf("%s: %s has no heading #%s", name, to, anchor)
			}
		}
	}
}

// TestDocsIndexIsComplete: docs/index.md has each page once.
func TestDocsIndexIsComplete(t *testing.T) {
	index := page(t, "docs/index.md")
	for _, name := range pages(t) {
		base, ok := strings.CutPrefix(name, "docs/")
		if !ok || base == "index.md" {
			continue
		}
		if n := strings.Count(index, "]("+base+")"); n != 1 {
			t.Errorf("docs/index.md has %d links to %s, want 1", n, base)
		}
	}
}

// TestContributingNamesWhatExists: packages, folders and files that
// CONTRIBUTING.md names are there, and no package is left out.
func TestContributingNamesWhatExists(t *testing.T) {
	text := page(t, "CONTRIBUTING.md")
	listed := map[string]bool{}
	for _, cells := range rows(text) {
		for _, q := range quotes(cells[0]) {
			listed[q] = true
			if _, err := os.Stat(filepath.Join(top, "internal", q)); err != nil {
				t.Errorf("CONTRIBUTING.md lists the package %s, which does not exist", q)
			}
		}
	}
	entries, err := os.ReadDir(filepath.Join(top, "internal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !listed[e.Name()] {
			t.Errorf("CONTRIBUTING.md does not list the package internal/%s", e.Name())
		}
	}
	place := regexp.MustCompile(`^(internal|docs|testdata|cmd|\.ci)/[A-Za-z0-9_./-]+$`)
	for _, q := range quotes(text) {
		if !place.MatchString(q) {
			continue
		}
		if _, err := os.Stat(filepath.Join(top, q)); err != nil {
			t.Errorf("CONTRIBUTING.md names %s, which does not exist", q)
		}
	}
}
