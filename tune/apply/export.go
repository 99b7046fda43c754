package apply

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/khamsin-io/khamsin/tune"
)

// Format is a way to write a plan down.
type Format string

// The formats.
const (
	Shell      Format = "shell"      // a POSIX script
	Ansible    Format = "ansible"    // a list of tasks for a play that becomes root
	Kubernetes Format = "kubernetes" // a DaemonSet that sets up every node it runs on
)

// Export returns changes in a format. What it holds of names and values is quoted as the format wants it.
func Export(changes []tune.Change, f Format) (string, error) {
	switch f {
	case Shell:
		return exportShell(changes), nil
	case Ansible:
		return exportAnsible(changes), nil
	case Kubernetes:
		return exportKubernetes(changes), nil
	}
	return "", fmt.Errorf("export: format %q: want %s, %s or %s", f, Shell, Ansible, Kubernetes)
}

func exportShell(changes []tune.Change) string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\n# Written by khamsin tune export. Run as root.\nset -eu\n")
	for _, c := range changes {
		b.WriteString(c.Command() + "\n")
	}
	return b.String()
}

// scalar makes text a YAML scalar in double quotes, which are those of Go for what settings are made of.
func scalar(text string) string { return strconv.QuoteToASCII(text) }

func exportAnsible(changes []tune.Change) string {
	var b strings.Builder
	b.WriteString("# Written by khamsin tune export: tasks for a play with become: true.\n")
	if len(changes) == 0 {
		b.WriteString("[]\n")
	}
	for _, c := range changes {
		fmt.Fprintf(&b, "- name: %s\n", scalar("Khamsin: "+string(c.Kind)+" "+c.Target))
		if c.Kind == tune.Sysctl {
			fmt.Fprintf(&b, "  ansible.posix.sysctl:\n    name: %s\n    value: %s\n", scalar(c.Target), scalar(c.Value))
			fmt.Fprintf(&b, "    sysctl_file: %s\n    sysctl_set: true\n    state: present\n", SysctlFile)
			continue
		}
		fmt.Fprintf(&b, "  ansible.builtin.shell: %s\n", scalar(noTemplate(c.Command())))
	}
	return b.String()
}

// noTemplate keeps Ansible from seeing a template in text.
func noTemplate(text string) string { return strings.ReplaceAll(text, "{{", "{{ '{{' }}") }

func exportKubernetes(changes []tune.Change) string {
	var b strings.Builder
	b.WriteString(`# Written by khamsin tune export: sets up every node that it runs on.
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: khamsin-tune
  labels: {app: khamsin-tune}
spec:
  selector:
    matchLabels: {app: khamsin-tune}
  template:
    metadata:
      labels: {app: khamsin-tune}
    spec:
      hostNetwork: true
      initContainers:
        - name: tune
          image: busybox:1.36
          securityContext: {privileged: true}
          command: ["/bin/sh", "-euc"]
          args:
            - |
              :
`)
	for _, c := range changes {
		b.WriteString("              " + c.Command() + "\n")
	}
	b.WriteString(`      containers:
        - name: rest
          image: busybox:1.36
          command: ["sleep", "infinity"]
          resources:
            requests: {cpu: 1m, memory: 4Mi}
            limits: {cpu: 10m, memory: 16Mi}
`)
	return b.String()
}
