# Runs bin\caddy.exe with Caddyfile.example, and with the settings in .env if there is
# one; builds it first if it isn't there. Ctrl+C stops it. For Windows PowerShell 5.1
# and later.
#
#   powershell -ExecutionPolicy Bypass -File start.ps1
[CmdletBinding()]
param(
    # The configuration to run, relative to this folder.
    [string] $Config = 'Caddyfile.example'
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

Push-Location $PSScriptRoot
try {
    if (-not (Test-Path bin\caddy.exe)) {
        & .\setup.ps1
    }
    $arguments = @('run', '--config', $Config, '--adapter', 'caddyfile')
    if (Test-Path .env) {
        $arguments += @('--envfile', '.env')
    }
    & .\bin\caddy.exe @arguments
    $code = $LASTEXITCODE
}
finally {
    Pop-Location
}
exit $code
