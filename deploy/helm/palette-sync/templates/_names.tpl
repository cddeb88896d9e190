{{- define "palette-sync.name" -}}
{{- if contains "palette-sync" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-palette-sync" (.Release.Name | trunc 37 | trimSuffix "-") -}}
{{- end -}}
{{- end }}

{{- define "palette-sync.selector" -}}
app.kubernetes.io/name: {{ include "palette-sync.name" . }}
{{- end }}

{{- define "palette-sync.labels" -}}
{{ include "palette-sync.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "palette-sync.secret" -}}
{{- .Values.secret.name | default (include "palette-sync.name" .) -}}
{{- end }}

{{- define "palette-sync.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end }}
