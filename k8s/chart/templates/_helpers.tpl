{{/* The namespace of all objects. */}}
{{- define "isoflop.namespace" -}}
{{ .Values.namespace.name }}
{{- end }}

{{/* Where an object is, and the label that all objects and pods have. */}}
{{- define "isoflop.place" -}}
namespace: {{ include "isoflop.namespace" . }}
labels:
  app.kubernetes.io/part-of: isoflop
{{- end }}

{{/* An object that a removal of the release keeps, because it holds what people made. */}}
{{- define "isoflop.kept" -}}
annotations:
  helm.sh/resource-policy: keep
{{- end }}

{{- define "isoflop.image" -}}
{{- $image := .Values.image }}
{{- if $image.digest -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* A network for a policy; all addresses but those of metadata servers, if it is all of them. */}}
{{- define "isoflop.block" -}}
{{- if eq . "0.0.0.0/0" -}}
ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}
{{- else if eq . "::/0" -}}
ipBlock: {cidr: '::/0', except: ['fe80::/10', 'fd00:ec2::/32']}
{{- else -}}
ipBlock: {cidr: {{ . | squote }}}
{{- end }}
{{- end }}

{{/* Where the pods of the chart itself run. */}}
{{- define "isoflop.pods" -}}
{{- with .Values.pods.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pods.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pods.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end }}
