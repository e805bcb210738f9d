# Checks that Go is there and builds bin\caddy.exe: Caddy with Isekai. For Windows
# PowerShell 5.1 and later; on other systems use make.
#
#   powershell -ExecutionPolicy Bypass -File setup.ps1
[CmdletBinding()]
param()

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$caddyVersion = 'v2.11.9'
$module = 'github.com/isekai-gateway/isekai'

if (-not (Get-Command go -ErrorAction SilentlyContinue)) {
    throw 'Go is not installed, or not on the PATH. See https://go.dev/doc/install.'
}

Push-Location $PSScriptRoot
try {
    # go.mod names the version that is needed. Any Go since 1.21 fetches it by itself.
    $needed = [version]((Select-String -Path go.mod -Pattern '^go (\d+\.\d+(\.\d+)?)$').Matches[0].Groups[1].Value)
    $found = (& go env GOVERSION) -replace '^go(\d+\.\d+(\.\d+)?).*$', '$1'
    if ($LASTEXITCODE -ne 0 -or [version]$found -lt $needed) {
        throw "Go $needed or later is needed; 'go env GOVERSION' says $found."
    }
    Write-Host "Building bin\caddy.exe with Go $found. The first time compiles all of Caddy and takes some minutes."

    # xcaddy has flags of its own and uses them only if it is given none.
    $env:XCADDY_GO_BUILD_FLAGS = ''
    & go tool xcaddy build $caddyVersion --with "$module@v0.0.0=." --output bin\caddy.exe
    if ($LASTEXITCODE -ne 0) {
        throw "xcaddy failed with exit code $LASTEXITCODE."
    }
    $missing = @('isekai', 'http.handlers.isekai', 'admin.api.isekai') |
        Where-Object { (& .\bin\caddy.exe list-modules) -notcontains $_ }
    if ($missing) {
        throw "The binary lacks the modules $($missing -join ', ')."
    }
    Write-Host 'Done. Start it with: .\start.ps1'
}
finally {
    Pop-Location
}
