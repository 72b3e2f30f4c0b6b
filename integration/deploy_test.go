//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The examples of deploy/ are checked without a cluster: by the programs that read them where those are there, by python3-yaml and the init itself
// everywhere. That they work is shown on a real node.

const deployFolder = "../deploy"

// documents reads a YAML file strictly.
func documents(t *testing.T, file string) []map[string]any {
	t.Helper()
	out, err := runPython("testdata/readyaml.py", file)
	if err != nil {
		t.Fatal(err)
	}
	var all []map[string]any
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return all
}

func runPython(script, file string) ([]byte, error) {
	var errs bytes.Buffer
	cmd := exec.Command("/usr/bin/python3", "-B", script, file)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", file, err, &errs)
	}
	return out, err
}

func manifests(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(deployFolder + "/kubernetes/*.yaml")
	if err != nil || len(files) < 6 {
		t.Fatalf("manifests %q (%v)", files, err)
	}
	return slices.DeleteFunc(files, func(f string) bool { return filepath.Base(f) == "kustomization.yaml" })
}

// at follows keys and indexes into a document; nil if something is not there.
func at(v any, keys ...any) any {
	for _, key := range keys {
		switch key := key.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[key]
		case int:
			list, _ := v.([]any)
			if key >= len(list) {
				return nil
			}
			v = list[key]
		}
	}
	return v
}

func items(v any) []any { list, _ := v.([]any); return list }

func texts(v any) (all []string) {
	for _, item := range items(v) {
		all = append(all, fmt.Sprint(item))
	}
	return all
}

func TestDeployManifests(t *testing.T) {
	t.Parallel()
	for _, file := range manifests(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			docs := documents(t, file)
			var deployment, service map[string]any
			folder := map[string]string{} // of mounted ConfigMaps, on this machine
			for _, d := range docs {
				switch d["kind"] {
				case "Deployment":
					deployment = d
				case "Service":
					service = d
				case "ConfigMap":
					folder[fmt.Sprint(at(d, "metadata", "name"))] = configFolder(t, d)
				default:
					t.Errorf("an object of kind %v", d["kind"])
				}
			}
			labels := at(deployment, "spec", "template", "metadata", "labels")
			if selector := at(deployment, "spec", "selector", "matchLabels"); !reflect.DeepEqual(selector, labels) || !reflect.DeepEqual(at(service, "spec", "selector"), labels) {
				t.Errorf("the labels do not fit together: %v, %v", selector, labels)
			}
			if len(docs) > 0 && at(service, "spec", "ports", 0, "targetPort") != at(deployment, "spec", "template", "spec", "containers", 0, "ports", 0, "containerPort") {
				t.Error("the ports do not fit together")
			}
			checkPod(t, at(deployment, "spec", "template", "spec"), folder)
		})
	}
}

// configFolder writes what a ConfigMap has.
func configFolder(t *testing.T, d map[string]any) string {
	t.Helper()
	dir := t.TempDir()
	data, _ := d["data"].(map[string]any)
	for name, text := range data {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text.(string)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func checkPod(t *testing.T, pod any, folder map[string]string) {
	t.Helper()
	container := at(pod, "containers", 0)
	env := map[string]string{}
	for _, pair := range items(at(container, "env")) {
		env[fmt.Sprint(at(pair, "name"))] = fmt.Sprint(at(pair, "value"))
	}
	init := "/entrypoint"
	if command := texts(at(container, "command")); len(command) > 0 {
		init = command[0]
	}
	if got := texts(at(container, "readinessProbe", "exec", "command")); !slices.Equal(got, []string{init, "health"}) {
		t.Errorf("the probe runs %q", got)
	}
	grace, _ := at(pod, "terminationGracePeriodSeconds").(float64)
	checkTimes(t, env, time.Duration(grace)*time.Second)
	for key, value := range env { // as mounted
		for _, mount := range items(at(container, "volumeMounts")) {
			for _, volume := range items(at(pod, "volumes")) {
				if name, ok := at(volume, "configMap", "name").(string); ok && at(volume, "name") == at(mount, "name") {
					env[key] = strings.ReplaceAll(value, fmt.Sprint(at(mount, "mountPath")), folder[name])
				}
			}
		}
	}
	checkEnvironment(t, env)
}

// checkTimes wants the init to be done before the runtime kills it, and to be told when that is.
func checkTimes(t *testing.T, env map[string]string, grace time.Duration) {
	t.Helper()
	duration := func(name string) time.Duration {
		text, ok := env["ENTRYPOINT_"+name]
		if !ok {
			return 0
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Error(err)
		}
		return d
	}
	if told := duration("GRACE"); told != grace {
		t.Errorf("ENTRYPOINT_GRACE is %v, and the runtime waits %v", told, grace)
	}
	timeout := duration("SHUTDOWN_TIMEOUT")
	if timeout == 0 {
		timeout = 8 * time.Second
	}
	if all := duration("SHUTDOWN_DELAY") + timeout; all >= grace {
		t.Errorf("a stop takes %v, and the runtime waits %v", all, grace)
	}
}

// checkEnvironment wants the init to take these variables without a word.
func checkEnvironment(t *testing.T, env map[string]string) {
	t.Helper()
	cmd := exec.Command(binaries.Entrypoint, "check", "--", binaries.TestApp)
	cmd.Env = []string{"PATH=/bin"}
	for key, value := range env {
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil || errs.Len() > 0 {
		t.Errorf("entrypoint check with %v: %v\n%s", env, err, &errs)
	}
}

// TestDeployRestricted: what Pod Security's profile `restricted` demands of the two that claim it.
func TestDeployRestricted(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"hardened", "injected"} {
		docs := documents(t, deployFolder+"/kubernetes/"+name+".yaml")
		pod := at(docs[1], "spec", "template", "spec")
		if at(pod, "securityContext", "runAsNonRoot") != true || at(pod, "securityContext", "seccompProfile", "type") != "RuntimeDefault" {
			t.Errorf("%s: %v", name, at(pod, "securityContext"))
		}
		for _, c := range append(items(at(pod, "containers")), items(at(pod, "initContainers"))...) {
			s := at(c, "securityContext")
			if at(s, "allowPrivilegeEscalation") != false || at(s, "readOnlyRootFilesystem") != true || at(s, "capabilities", "drop", 0) != "ALL" {
				t.Errorf("%s: %v: %v", name, at(c, "name"), s)
			}
		}
	}
}

// kubectlHere is the kubectl of $PATH, or one that was built for the tests on a node.
func kubectlHere(t *testing.T) string {
	t.Helper()
	if name, err := exec.LookPath("kubectl"); err == nil {
		return name
	}
	cache, err := os.UserCacheDir()
	if err == nil {
		if found, _ := filepath.Glob(cache + "/entrypoint-k8s/*/kubectl"); len(found) > 0 {
			return found[0]
		}
	}
	t.Skip("SKIPPED: no kubectl: the fields of the manifests are checked by python3-yaml and the node only")
	return ""
}

// TestDeployFields: kubectl knows every field of every workload. It decodes them into its own types without asking a server, and what it does not
// know is not in what it prints.
func TestDeployFields(t *testing.T) {
	t.Parallel()
	kubectl := kubectlHere(t)
	for _, file := range manifests(t) {
		if lost := unknownFields(t, kubectl, file); lost != nil {
			t.Errorf("%s: kubectl does not know %q", file, lost)
		}
	}
	text, err := os.ReadFile(deployFolder + "/kubernetes/web.yaml")
	if err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "wrong.yaml")
	if err := os.WriteFile(wrong, bytes.Replace(text, []byte("periodSeconds"), []byte("periodSecond"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if lost := unknownFields(t, kubectl, wrong); !slices.ContainsFunc(lost, func(l string) bool { return strings.HasSuffix(l, "/readinessProbe/periodSecond") }) {
		t.Errorf("a wrong field is not noticed: %q", lost)
	}
}

// unknownFields lists the fields of the file's workloads that kubectl drops.
func unknownFields(t *testing.T, kubectl, file string) (lost []string) {
	t.Helper()
	for _, d := range documents(t, file) {
		if d["kind"] != "Deployment" {
			continue // kubectl sets images in workloads only
		}
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		var errs bytes.Buffer
		cmd := exec.Command(kubectl, "set", "image", "--local", "-f", "-", "-o", "json", "*=x:1")
		cmd.Env = append(os.Environ(), "KUBECONFIG=/dev/null")
		cmd.Stdin, cmd.Stderr = bytes.NewReader(text), &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("kubectl with %s: %v\n%s", file, err, &errs)
		}
		var typed any
		if err := json.Unmarshal(out, &typed); err != nil {
			t.Fatal(err)
		}
		lost = append(lost, missingIn(typed, d, "")...)
	}
	return lost
}

// missingIn lists what is in a and not in typed.
func missingIn(typed, a any, where string) (lost []string) {
	switch a := a.(type) {
	case map[string]any:
		for key, value := range a {
			lost = append(lost, missingIn(at(typed, key), value, where+"/"+key)...)
		}
	case []any:
		for i, value := range a {
			lost = append(lost, missingIn(at(typed, i), value, fmt.Sprint(where, "/", i))...)
		}
	default:
		if typed == nil {
			return []string{where}
		}
	}
	return lost
}

// TestDeployKustomize: a line for each image is all that stands between the manifests and somebody's images.
func TestDeployKustomize(t *testing.T) {
	t.Parallel()
	images := map[string]bool{}
	for _, file := range manifests(t) {
		for _, d := range documents(t, file) {
			pod := at(d, "spec", "template", "spec")
			for _, c := range append(items(at(pod, "containers")), items(at(pod, "initContainers"))...) {
				name, _, _ := strings.Cut(fmt.Sprint(at(c, "image")), ":")
				images[name] = true
			}
		}
	}
	k := documents(t, deployFolder+"/kubernetes/kustomization.yaml")[0]
	var replaced, resources []string
	for _, image := range items(k["images"]) {
		replaced = append(replaced, fmt.Sprint(at(image, "name")))
	}
	if want := slices.Sorted(maps.Keys(images)); !slices.Equal(slices.Sorted(slices.Values(replaced)), want) {
		t.Errorf("kustomization.yaml replaces %q, the manifests have %q", replaced, want)
	}
	for _, file := range manifests(t) {
		resources = append(resources, filepath.Base(file))
	}
	if got := texts(k["resources"]); !slices.Equal(slices.Sorted(slices.Values(got)), resources) {
		t.Errorf("kustomization.yaml has %q, the folder %q", got, resources)
	}
	kubectl := kubectlHere(t)
	dir := t.TempDir()
	for _, file := range append(manifests(t), deployFolder+"/kubernetes/kustomization.yaml") {
		text, err := os.ReadFile(file)
		if err == nil {
			text = bytes.ReplaceAll(text, []byte("newName: "), []byte("newName: registry.test/"))
			err = os.WriteFile(filepath.Join(dir, filepath.Base(file)), text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(kubectl, "kustomize", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl kustomize: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if image, ok := strings.CutPrefix(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "- ")), "image: "); ok && !strings.HasPrefix(image, "registry.test/") {
			t.Errorf("not replaced: %s", image)
		}
	}
}

// TestDeployCompose: Debian's Compose knows every key but `develop`, which is newer; that one is checked here.
func TestDeployCompose(t *testing.T) {
	t.Parallel()
	doc := documents(t, deployFolder+"/compose.yaml")[0]
	server := at(doc, "services", "server").(map[string]any)
	env := map[string]string{}
	for key, value := range server["environment"].(map[string]any) {
		env[key] = fmt.Sprint(value)
	}
	grace, err := time.ParseDuration(fmt.Sprint(server["stop_grace_period"]))
	if err != nil {
		t.Error(err)
	}
	checkTimes(t, env, grace)
	checkEnvironment(t, env)
	if got := texts(at(server, "healthcheck", "test")); !slices.Equal(got, []string{"CMD", "/entrypoint", "health"}) {
		t.Errorf("the health check is %q", got)
	}
	watch := items(at(server, "develop", "watch"))
	if len(watch) != 1 {
		t.Fatalf("develop.watch: %v", watch)
	}
	for key, value := range watch[0].(map[string]any) {
		if want := map[string]string{"action": "sync", "path": "../app", "target": "/app"}[key]; want != value {
			t.Errorf("develop.watch has %s: %v", key, value)
		}
	}
	if _, err := os.Stat(filepath.Join(deployFolder, fmt.Sprint(at(server, "build", "context")), fmt.Sprint(at(server, "build", "dockerfile")))); err != nil {
		t.Error(err)
	}
	file := composeWithout(t, doc)
	if out, err := exec.Command("docker-compose", "-f", file, "config", "--quiet").CombinedOutput(); err != nil {
		t.Errorf("docker-compose config: %v\n%s", err, out)
	}
	server["healthchek"] = "x"
	if out, err := exec.Command("docker-compose", "-f", composeWithout(t, doc), "config", "--quiet").CombinedOutput(); err == nil {
		t.Errorf("docker-compose takes everything: %s", out)
	}
}

// composeWithout writes the file without `develop`, and gives its name. (JSON is YAML.)
func composeWithout(t *testing.T, doc map[string]any) string {
	t.Helper()
	server := maps.Clone(at(doc, "services", "server").(map[string]any))
	delete(server, "develop")
	text, err := json.Marshal(map[string]any{"version": "3.9", "services": map[string]any{"server": server}})
	file := filepath.Join(t.TempDir(), "compose.yaml")
	if err == nil {
		err = os.WriteFile(file, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// TestDeployTools: the Tiltfile runs, and it and Skaffold's file name files and images that are there.
func TestDeployTools(t *testing.T) {
	t.Parallel()
	exists := func(name string) {
		t.Helper()
		if _, err := os.Stat(filepath.Join(deployFolder, name)); err != nil {
			t.Error(err)
		}
	}
	out, err := runPython("testdata/tiltfile.py", deployFolder+"/Tiltfile")
	if err != nil {
		t.Fatal(err)
	}
	var calls []struct {
		Name    string
		Args    []string
		Options map[string]any
	}
	if err := json.Unmarshal(out, &calls); err != nil {
		t.Fatal(err)
	}
	done := map[string]bool{}
	for _, c := range calls {
		done[c.Name] = true
		switch c.Name {
		case "k8s_yaml":
			exists(c.Args[0])
		case "docker_build":
			exists(fmt.Sprint(c.Options["dockerfile"]))
			for _, name := range texts(c.Options["only"]) {
				exists(path.Join(c.Args[1], name))
			}
			if c.Args[0] != "server" {
				t.Errorf("the Tiltfile builds %q", c.Args[0])
			}
		case "local_resource":
			for _, name := range texts(c.Options["deps"]) {
				exists(name)
			}
			if cmd := fmt.Sprint(c.Options["cmd"]); !strings.Contains(cmd, "kubectl hotswap push ../bin/server deploy/web") {
				t.Errorf("the Tiltfile runs %q", cmd)
			}
		}
	}
	if len(done) != 4 {
		t.Errorf("the Tiltfile calls %v", done)
	}
	s := documents(t, deployFolder+"/skaffold.yaml")[0]
	artifact := at(s, "build", "artifacts", 0)
	exists(filepath.Join(fmt.Sprint(at(artifact, "context")), fmt.Sprint(at(artifact, "docker", "dockerfile"))))
	for _, name := range texts(at(s, "manifests", "rawYaml")) {
		exists(name)
	}
	if s["kind"] != "Config" || !strings.HasPrefix(fmt.Sprint(s["apiVersion"]), "skaffold/v") || at(artifact, "image") != "server" {
		t.Errorf("skaffold.yaml: %v", s)
	}
}

// TestDeployVariables: every variable that is named anywhere in deploy/ exists.
func TestDeployVariables(t *testing.T) {
	t.Parallel()
	reference, err := exec.Command(binaries.Entrypoint, "config", "--markdown").Output()
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`ENTRYPOINT_[A-Z_]+`)
	seen := 0
	for _, pattern := range []string{"/*", "/kubernetes/*"} {
		files, _ := filepath.Glob(deployFolder + pattern)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				continue // a folder
			}
			for _, variable := range name.FindAllString(string(text), -1) {
				seen++
				if !bytes.Contains(reference, []byte("`"+variable+"`")) {
					t.Errorf("%s names %s, which does not exist", file, variable)
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d variables were found", seen)
	}
}
