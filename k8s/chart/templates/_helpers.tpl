{{/* The namespace of the team, where its sweeps run. */}}
{{- define "isoflop.namespace" -}}
{{ .Values.namespace.name }}
{{- end }}

{{/* The namespace of MLflow and its database. */}}
{{- define "isoflop.tracking" -}}
{{- $tracking := .Values.tracking }}
{{- if not (or $tracking.create $tracking.namespace) }}
{{- fail "tracking.namespace must be named where tracking.create is false: that of the release with MLflow" }}
{{- end }}
{{- $tracking.namespace | default (printf "%s-tracking" .Values.namespace.name) }}
{{- end }}

{{/* Whether both are one namespace, as in earlier charts; empty if not. */}}
{{- define "isoflop.together" -}}
{{- if eq (include "isoflop.tracking" .) .Values.namespace.name }}
{{- if not .Values.tracking.create }}
{{- fail "tracking.namespace must be another one than namespace.name where tracking.create is false" }}
{{- end }}yes{{ end }}
{{- end }}

{{/* Whether the team has a database of its own for Optuna, made by a Job; empty if not. */}}
{{- define "isoflop.optuna" -}}
{{- if and .Values.postgres.create (not (include "isoflop.together" .)) }}yes{{ end }}
{{- end }}

{{/* Whether the chart makes the Secret by which drivers find MLflow; empty if not. */}}
{{- define "isoflop.uriSecret" -}}
{{- if and .Values.mlflow.uriSecret (or .Values.tracking.secrets (not .Values.mlflow.auth.create)) }}yes{{ end }}
{{- end }}

{{/* The label that all objects and pods have. */}}
{{- define "isoflop.labels" -}}
labels:
  app.kubernetes.io/part-of: isoflop
{{- end }}

{{/* Where an object of the team is. */}}
{{- define "isoflop.place" -}}
namespace: {{ include "isoflop.namespace" . | quote }}
{{ include "isoflop.labels" . }}
{{- end }}

{{/* Where an object of MLflow or its database is. */}}
{{- define "isoflop.beside" -}}
namespace: {{ include "isoflop.tracking" . | quote }}
{{ include "isoflop.labels" . }}
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

{{/* A network outside the cluster: never one that has the addresses of metadata servers in it. */}}
{{- define "isoflop.outside" -}}
{{- $parts := splitList "/" (lower .) }}
{{- $address := first $parts }}
{{- $length := int (last $parts) }}
{{- $least := contains ":" $address | ternary 16 8 }}
{{- if not (has . (list "0.0.0.0/0" "::/0")) }}
{{- if lt $length $least }}
{{- fail (printf "network %s must have a prefix of %d or more, or be 0.0.0.0/0 or ::/0 to the letter: %s"
  . $least "only these two leave out the addresses of metadata servers") }}
{{- end }}
{{- $metadata := or (hasPrefix "169.254." $address) (and (hasPrefix "169." $address) (lt $length 16)) }}
{{- if contains ":" $address }}
{{- $metadata = or (not (regexMatch "^([23][0-9a-f]{3}|f[cd][0-9a-f]{2}):" $address))
  (regexMatch "^fd00:0?ec2:" $address) (and (hasPrefix "fd00:" $address) (lt $length 32)) }}
{{- end }}
{{- if $metadata }}
{{- fail (printf "network %s must not have addresses of metadata servers or of one link or host in it: %s"
  . "name the networks beside them; network.identity admits MLflow to metadata servers") }}
{{- end }}
{{- end }}
{{- include "isoflop.block" . }}
{{- end }}

{{/* The TCP ports of a rule. */}}
{{- define "isoflop.ports" -}}
{{- range . }}
- {protocol: TCP, port: {{ int . }}}
{{- end }}
{{- end }}

{{/* Where the pods of the chart itself run, and with which Secrets their images are pulled. */}}
{{- define "isoflop.pods" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
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
