{{- define "transship.labels" -}}
app.kubernetes.io/name: transship
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "transship.account" -}}
{{- .Values.serviceAccount.name | default .Release.Name -}}
{{- end }}

{{- define "transship.pod" -}}
serviceAccountName: {{ include "transship.account" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: mirrors
    configMap:
      name: {{ .Release.Name }}-mirrors
  - name: home
    {{- if .Values.state.size }}
    persistentVolumeClaim:
      claimName: {{ .Release.Name }}-state
    {{- else }}
    emptyDir: {}
    {{- end }}
  - name: tmp
    emptyDir: {}
  {{- if .Values.dockerConfigSecret }}
  - name: logins
    secret:
      secretName: {{ .Values.dockerConfigSecret | quote }}
      items:
        - key: .dockerconfigjson
          path: config.json
  {{- end }}
{{- end }}

{{- define "transship.container" -}}
name: transship
{{- if .Values.image.digest }}
image: "{{ .Values.image.repository }}@{{ .Values.image.digest }}"
{{- else }}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
{{- end }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - name: HOME
    value: /home/transship
  {{- if .Values.mirrorsMay }}
  - name: TRANSSHIP_MIRRORS_MAY
    value: {{ .Values.mirrorsMay | quote }}
  {{- end }}
  {{- if .Values.keychains }}
  - name: IMGPKG_ACTIVE_KEYCHAINS
    value: {{ .Values.keychains | quote }}
  {{- end }}
  {{- if .Values.dockerConfigSecret }}
  - name: DOCKER_CONFIG
    value: /run/secrets/logins
  {{- end }}
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
volumeMounts:
  - name: mirrors
    mountPath: /etc/transship
    readOnly: true
  - name: home
    mountPath: /home/transship
  - name: tmp
    mountPath: /tmp
  {{- if .Values.dockerConfigSecret }}
  - name: logins
    mountPath: /run/secrets/logins
    readOnly: true
  {{- end }}
{{- end }}
