package main

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
)

// object is what is read of a Kubernetes object of any of our kinds.
type object struct {
	Metadata struct {
		Name              string
		Namespace         string
		UID               string
		DeletionTimestamp string
		Labels            map[string]string
		Annotations       map[string]string
		OwnerReferences   []struct {
			Kind, Name, UID string
			Controller      bool
		}
	}
	Spec struct {
		Selector   labelSelector
		NodeName   string
		Containers []struct {
			Name    string
			Command []string
		}
	}
	Status struct {
		Phase      string
		Conditions []struct{ Type, Status string }

		ContainerStatuses []struct {
			Name, ContainerID string
			RestartCount      int
		}
	}
}

type labelSelector struct {
	MatchLabels      map[string]string
	MatchExpressions []struct {
		Key, Operator string
		Values        []string
	}
}

// String writes it as kubectl's -l takes it.
func (s labelSelector) String() string {
	var parts []string
	for key, value := range s.MatchLabels {
		parts = append(parts, key+"="+value)
	}
	for _, e := range s.MatchExpressions {
		switch e.Operator {
		case "In":
			parts = append(parts, e.Key+" in ("+strings.Join(e.Values, ",")+")")
		case "NotIn":
			parts = append(parts, e.Key+" notin ("+strings.Join(e.Values, ",")+")")
		case "Exists":
			parts = append(parts, e.Key)
		case "DoesNotExist":
			parts = append(parts, "!"+e.Key)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// pod is one pod of the target, as it was when it was last looked at.
type pod struct {
	name, uid, node  string
	container        string
	containerID      string
	entrypoint       string
	restarts         int
	notServing       string // why it gets no swap; empty: it is Ready
	hasContainer     bool
	containers       []string
	controller, hash string
	controllerUID    string
}

// facts reads what we need of a pod.
func (o *options) facts(obj object) pod {
	p := pod{name: obj.Metadata.Name, uid: obj.Metadata.UID, node: obj.Spec.NodeName, hash: obj.Metadata.Labels["pod-template-hash"]}
	p.container = cmp.Or(o.container, obj.Metadata.Annotations["kubectl.kubernetes.io/default-container"])
	for i, c := range obj.Spec.Containers {
		p.containers = append(p.containers, c.Name)
		if p.container == "" && i == 0 {
			p.container = c.Name
		}
		if c.Name != p.container {
			continue
		}
		p.hasContainer = true
		p.entrypoint = "/entrypoint"
		if len(c.Command) > 0 && path.IsAbs(c.Command[0]) && path.Base(c.Command[0]) == "entrypoint" {
			p.entrypoint = c.Command[0] // brought into an image that does not have it
		}
	}
	p.entrypoint = cmp.Or(o.entrypoint, p.entrypoint)
	for _, c := range obj.Status.ContainerStatuses {
		if c.Name == p.container {
			p.containerID, p.restarts = c.ContainerID, c.RestartCount
		}
	}
	for _, ref := range obj.Metadata.OwnerReferences {
		if ref.Controller {
			p.controller, p.controllerUID = ref.Kind+"/"+ref.Name, ref.UID
		}
	}
	p.notServing = notServing(obj)
	return p
}

// notServing says why a pod is left out.
func notServing(obj object) string {
	switch {
	case obj.Metadata.DeletionTimestamp != "":
		return "it is being deleted"
	case obj.Status.Phase != "Running":
		return "it is " + cmp.Or(obj.Status.Phase, "not known") + ", not Running"
	}
	for _, c := range obj.Status.Conditions {
		if c.Type == "Ready" && c.Status == "True" {
			return ""
		}
	}
	return "it is not Ready"
}

// pods lists the target's pods by name, and says in notes which were left out that its selector matches.
func (s *session) pods(ctx context.Context) ([]pod, error) {
	o := s.options
	if o.kind == "pod" {
		var obj object
		if err := s.kubectl.get(ctx, &obj, "pod", o.name); err != nil {
			return nil, err
		}
		return []pod{o.facts(obj)}, nil
	}
	selector, ours := o.selector, func(pod) bool { return true }
	if o.kind != "" {
		var owner object
		if err := s.kubectl.get(ctx, &owner, o.kind, o.name); err != nil {
			return nil, err
		}
		if selector = owner.Spec.Selector.String(); selector == "" {
			return nil, fmt.Errorf("%s has no selector", o.target())
		}
		ours = func(p pod) bool { return p.belongsTo(o.kind, owner) }
	}
	var list struct{ Items []object }
	if err := s.kubectl.get(ctx, &list, "pods", "-l", selector); err != nil {
		return nil, err
	}
	var all []pod
	for _, obj := range list.Items {
		p := o.facts(obj)
		switch {
		case ours(p):
			all = append(all, p)
		default:
			s.note("%s has the labels of %s and belongs to %s: left out", p.name, o.target(), cmp.Or(p.controller, "nobody"))
		}
	}
	slices.SortFunc(all, func(a, b pod) int { return cmp.Or(cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name)) })
	return all, nil
}

// belongsTo tells whether a workload has made the pod. A Deployment's pods are made by its ReplicaSets, which are named after it and the hash of
// the template; asking for them would need one more right.
func (p pod) belongsTo(kind string, owner object) bool {
	if kind == "deployment" {
		return p.controller == "ReplicaSet/"+owner.Metadata.Name+"-"+p.hash
	}
	return p.controllerUID == owner.Metadata.UID
}

// look asks for one pod again.
func (s *session) look(ctx context.Context, name string) (pod, error) {
	var obj object
	if err := s.kubectl.get(ctx, &obj, "pod", name); err != nil {
		return pod{}, err
	}
	return s.options.facts(obj), nil
}

// nodesAtOnce bounds a command line.
const nodesAtOnce = 100

// architectures asks which machines the nodes are. Who may not see nodes gets a note, not a refusal: the init looks by itself.
func (s *session) architectures(ctx context.Context, pods []pod) map[string]string {
	var names []string
	for _, p := range pods {
		if p.node != "" {
			names = append(names, p.node)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	known := map[string]string{}
	for some := range slices.Chunk(names, nodesAtOnce) {
		ctx, cancel := context.WithTimeoutCause(ctx, queryTime, fmt.Errorf("kubectl has not answered within %v", queryTime))
		a := s.kubectl.call(ctx, nil, append([]string{"get", "nodes", "--no-headers",
			"-o", "custom-columns=NAME:.metadata.name,ARCH:.status.nodeInfo.architecture"}, some...)...)
		cancel()
		for line := range strings.SplitSeq(string(a.out), "\n") {
			if f := strings.Fields(line); len(f) == 2 && f[1] != "<none>" {
				known[f[0]] = f[1]
			}
		}
		if a.err != nil {
			s.note("cannot see for which machine the nodes are built: %v; going on, each entrypoint looks by itself", a.err)
			return known
		}
	}
	return known
}
