//! `pmgate store`: the check of all that is stored, copies of it, and what can be saved of a damaged directory.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_body_util::BodyExt as _;
use hyper::Method;

use super::args::Store;
use super::exit::{Exit, Outcome};
use super::out;
use super::remote::Gateway;
use crate::store::StoreError;
use crate::store::archive::{Archive, Settings};
use crate::store::copy::{self, Summary};

/// Runs a command.
pub async fn run(command: Store) -> Outcome {
    match command {
        Store::Verify { state } => blocking(move || verify(&state)).await,
        Store::Export { state: Some(state), file, .. } => {
            blocking(move || export(&state, &file)).await
        }
        Store::Export { state: None, file, client } => {
            let mut gateway = Gateway::connect(&client).await?;
            download(&mut gateway, &file).await
        }
        Store::Import { state, file } => blocking(move || import(&state, &file)).await,
        Store::Salvage { dir, file } => blocking(move || salvage(&dir, &file)).await,
    }
}

async fn blocking(work: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
    tokio::task::spawn_blocking(work).await.map_err(Exit::failed)?
}

fn archive(state: &Path) -> Result<Archive, Exit> {
    let alarm = Box::new(|_: &'static str, text: String| out::complain(&text));
    Archive::open(&state.join("history"), Settings::default(), alarm).map_err(Exit::failed)
}

fn told(what: &str, summary: &Summary) -> String {
    let Summary { blocks, cells, damaged } = summary;
    format!("{what}: {blocks} blocks, {cells} readings, {damaged} damaged")
}

fn verify(state: &Path) -> Outcome {
    let archive = archive(state)?;
    let (mut bad, mut unread) = (0, 0);
    for (dir, found) in copy::verify(&archive) {
        match found {
            Ok(summary) => {
                bad += summary.damaged;
                out::line(&told(&dir, &summary));
            }
            Err(copy::CopyError::Store(StoreError::Failed(why))) => {
                unread += 1;
                out::line(&format!("{dir}: {why}"));
            }
            Err(error) => {
                bad += 1;
                out::line(&format!("{dir}: {:#}", anyhow::Error::from(error)));
            }
        }
    }
    if unread > 0 {
        return Err(Exit::failed(anyhow::anyhow!(
            "{unread} directories could not be read: see why above; nothing is known to be wrong with them"
        )));
    }
    if bad == 0 {
        return Ok(());
    }
    Err(Exit::failed(anyhow::anyhow!(
        "{bad} blocks, columns or directories are damaged: their readings are gaps; what can be read of directories that were set aside: pmgate store salvage"
    )))
}

/// A file that is there as a whole or not at all.
fn written(
    file: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<Summary, copy::CopyError>,
) -> Result<Summary, Exit> {
    let part = part(file);
    let mut out = BufWriter::new(File::create(&part).map_err(Exit::failed)?);
    let summary = write(&mut out).map_err(Exit::failed)?;
    out.flush().map_err(Exit::failed)?;
    out.get_ref().sync_all().map_err(Exit::failed)?;
    std::fs::rename(&part, file).map_err(Exit::failed)?;
    Ok(summary)
}

fn part(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

fn export(state: &Path, file: &Path) -> Outcome {
    let archive = Arc::new(archive(state)?);
    let summary = written(file, |out| copy::export(&archive, out))?;
    out::line(&told(&file.display().to_string(), &summary));
    Ok(())
}

/// From a running gateway. The copy says itself where it ends, so one that was cut off is no copy.
async fn download(gateway: &mut Gateway, file: &Path) -> Outcome {
    let mut response = gateway.send(Method::GET, "/v1/store", &[], None).await?;
    if !response.status().is_success() {
        return Err(Exit::failed(anyhow::anyhow!(
            "the gateway answered {}: a copy needs the role admin",
            response.status()
        )));
    }
    let part = part(file);
    let mut out = BufWriter::new(File::create(&part).map_err(Exit::failed)?);
    let mut bytes = 0;
    while let Some(frame) = response.body_mut().frame().await {
        let frame = frame.map_err(Exit::unreachable)?;
        let Some(data) = frame.data_ref() else { continue };
        bytes += data.len();
        out.write_all(data).map_err(Exit::failed)?;
    }
    out.flush().map_err(Exit::failed)?;
    out.get_ref().sync_all().map_err(Exit::failed)?;
    std::fs::rename(&part, file).map_err(Exit::failed)?;
    out::line(&format!("{}: {bytes} bytes", file.display()));
    Ok(())
}

fn import(state: &Path, file: &Path) -> Outcome {
    let archive = archive(state)?;
    let mut input = BufReader::new(File::open(file).map_err(Exit::failed)?);
    let summary = copy::import(&archive, &mut input).map_err(Exit::failed)?;
    out::line(&told(&file.display().to_string(), &summary));
    Ok(())
}

fn salvage(dir: &Path, file: &Path) -> Outcome {
    let summary = written(file, |out| copy::salvage(dir, out))?;
    out::line(&told(&file.display().to_string(), &summary));
    if summary.cells == 0 {
        return Err(Exit::failed(anyhow::anyhow!(
            "nothing of {} can be read: keep it if it matters, as its values may lie in it all the same",
            dir.display()
        )));
    }
    out::line(&format!(
        "take it in, with the gateway stopped: pmgate store import --state DIR {}",
        file.display()
    ));
    Ok(())
}
