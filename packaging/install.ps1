# Installs SparseZO for the current user on Windows, with the PyTorch that fits this computer's GPU, or its CPU:
#
#   powershell -ExecutionPolicy Bypass -File packaging\install.ps1 [-Torch BACKEND] [WHEEL|FOLDER]
#   powershell -ExecutionPolicy Bypass -File packaging\install.ps1 -Uninstall
#
# Does what install.sh does on Linux and macOS, and has the same options. Not tried on Windows yet.
[CmdletBinding()]
param(
    [string] $Torch = "auto",
    [switch] $Uninstall,
    [Parameter(Position = 0)] [string] $Source = (Split-Path -Parent $PSScriptRoot)
)
$ErrorActionPreference = "Stop"
$shortcut = Join-Path ([Environment]::GetFolderPath("Programs")) "SparseZO.lnk"

function Invoke-Uv {
    & uv @args
    if ($LASTEXITCODE -ne 0) { throw "uv $($args[0..1] -join ' ') failed." }
}

if (-not (Test-Path $Source)) {
    [Console]::Error.WriteLine("install.ps1: '$Source' does not exist. Give a wheel or the folder of the source.")
    exit 2
}
$env:PATH = "$env:PATH;$HOME\.local\bin"
if ($Uninstall) {
    Invoke-Uv tool uninstall sparsezo-gui
    Remove-Item -ErrorAction SilentlyContinue $shortcut
    $data = if ($env:SPARSEZO_HOME) { $env:SPARSEZO_HOME } else { "$env:LOCALAPPDATA\sparsezo" }
    Write-Output "Removed. Your runs are still in $data."
    exit
}
if (-not (Get-Command uv -ErrorAction SilentlyContinue)) {
    powershell -ExecutionPolicy Bypass -Command "Invoke-RestMethod https://astral.sh/uv/install.ps1 | Invoke-Expression"
}

# The versions in constraints.txt have wheels for these versions of Python.
$options = @("--force", "--python", ">=3.11,<3.14", "--constraints", (Join-Path $PSScriptRoot "constraints.txt"))
if ($Torch -ne "index") { $options += @("--torch-backend", $Torch) }
Invoke-Uv tool install @options $Source
$bin = Invoke-Uv tool dir --bin

$link = (New-Object -ComObject WScript.Shell).CreateShortcut($shortcut)
$link.TargetPath = Join-Path $bin "sparsezo-gui.exe"
$link.Save()
& (Join-Path $bin "sparsezo.exe") doctor
Write-Output "" "Start the window from the Start menu, or with: $(Join-Path $bin 'sparsezo-gui.exe') starter"
exit 0
